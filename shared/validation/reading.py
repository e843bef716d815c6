"""Reading a value into a type, with all faults at once, in words; what can be mended is.

For what a strict decoder has refused, so it may take its time. Mended is what has one meaning:
`null` for what may be left out, and an empty text where a `Meta` has
`extra={"empty_is_none": True}`; white space around a text that may have none; a whole number for a
text with `{"takes_whole_numbers": True}`; and what a type's `{"normalise": …}` makes of a text.
"""

import difflib
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, TypeVar, Union

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

from shared.validation import json_text, words

T = TypeVar("T")
MOST_FAULTS = 20
_MISSPELT = 0.8  # of difflib's ratio
_MOST_COMPARED, _LONGEST_COMPARED = 100, 100
_NAMED_CHARACTERS = {"\t": "a tab", "\n": "a line feed", "\r": "a carriage return"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class InvalidValueError(ValueError):
    """A value does not fit its type.

    Args:
        faults: all that is wrong, a sentence each, in which the path of the value is named.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(" ".join(faults))
        self.faults = faults


def read_json(raw: bytes, type_: type[T]) -> T:
    """The value of a JSON text.

    Args:
        raw: the text.
        type_: a Struct.

    Raises:
        InvalidValueError: it is no JSON, or does not fit.
    """
    try:
        value = json_text.parse(raw)
    except json_text.NotJsonError as error:
        raise InvalidValueError(str(error)) from None
    return read(value, type_)


def why_not(raw: bytes, type_: type[Any]) -> str:
    """Why a strict decoder refuses a JSON text, in words, for a log; nothing is mended.

    Args:
        raw: the text.
        type_: a Struct.
    """
    try:
        read(json_text.parse(raw), type_, mends=False, shows=False)
    except json_text.NotJsonError as error:
        return str(error)
    except InvalidValueError as error:
        return str(error)
    return f"It is no {type_.__name__}."


def read(
    value: Any,
    type_: type[T],
    path: str = "$",
    *,
    strict: bool = True,
    mends: bool = True,
    shows: bool = True,
) -> T:
    """Plain objects as a Struct.

    Args:
        value: of JSON, or by the names of a query string.
        type_: a Struct.
        path: where the value stands, before the names of its members.
        strict: whether a text is no number. In a query string everything is text.
        mends: whether what has one meaning is mended.
        shows: whether the faults repeat a text that is wrong: to whom it came from, and to no log.

    Raises:
        InvalidValueError: it does not fit.
    """
    walk = _Walk(strict, mends, shows)
    with suppress(_TooManyFaultsError):
        mended = walk.value(value, type_, path)
        if not walk.faults:
            try:
                return msgspec.convert(mended, type_, strict=strict)
            except (msgspec.ValidationError, RecursionError, OverflowError):
                walk.faults.append(f"{path} must be {_words(type_)}.")
    faults = walk.faults[:MOST_FAULTS]
    if len(walk.faults) > MOST_FAULTS:
        faults.append("There are more.")
    raise InvalidValueError(*faults)


class _TooManyFaultsError(Exception):
    """More were found than are told."""


class _Walk:
    """Goes through a value, and collects what is wrong.

    What is too large is not gone into, and with one fault too many it ends: whoever sends a list of
    thousands has everybody else wait for so long.
    """

    def __init__(self, strict: bool, mends: bool, shows: bool) -> None:
        self._strict = strict
        self._mends = mends
        self._shows = shows
        self.faults: list[str] = []

    def value(self, value: Any, type_: Any, path: str) -> Any:
        """A value with what could be mended; what could not is among the faults."""
        if type_ is msgspec.Raw:
            return msgspec.Raw(msgspec.json.encode(value))
        for choice in _choices(type_):
            match _info(choice), value:
                case inspect.StructType(cls=struct), dict():
                    return self._members(value, struct, path)
                case inspect.DictType(), dict():
                    inner = _arguments(choice)[-1]
                    if not self._is_bound(value, choice, path):
                        return value
                    self._names(value, choice, path)
                    if self._mends and not _may_be_null(inner):
                        value = {name: one for name, one in value.items() if one is not None}
                    return {n: self.value(v, inner, f"{path}.{n:.60}") for n, v in value.items()}
                case inspect.ListType() | inspect.VarTupleType(), list():
                    inner = _arguments(choice)[0]
                    if not self._is_bound(value, choice, path):
                        return value
                    return [self.value(v, inner, f"{path}[{n}]") for n, v in enumerate(value)]
        return self._leaf(value, type_, path)

    def _fault(self, sentence: str) -> None:
        self.faults.append(sentence)
        if len(self.faults) > MOST_FAULTS:
            raise _TooManyFaultsError

    def _is_bound(self, value: Collection[Any], type_: Any, path: str) -> bool:
        info = _info(type_)
        least, most = getattr(info, "min_length", None), getattr(info, "max_length", None)
        is_bound = len(value) >= (least or 0) and (most is None or len(value) <= most)
        if not is_bound:
            self._fault(f"{path} must be {_words(type_)}, and has {len(value)}.")
        return is_bound

    def _names(self, value: Collection[str], type_: Any, path: str) -> None:
        of = _arguments(type_)[0]
        for name in () if of is str else value:
            try:
                msgspec.convert(name, of)
            except msgspec.ValidationError:
                what = _is_text(name, _info(of), self._shows)
                self._fault(f"{path}: each name must be {_words(of)}, and one {what}.")

    def _members(self, given: Mapping[str, Any], struct: Any, path: str) -> dict[str, Any]:
        found = {}
        fields = _fields(struct)
        for field in fields:
            name, where = field.encode_name, f"{path}.{field.encode_name}".lstrip(".")
            value = given.get(name)
            if self._mends and not field.required and _is_empty(value, field.type):
                continue
            is_said = name in given and (_may_be_null(field.type) or not self._mends)
            if value is not None or is_said:
                found[name] = self.value(value, field.type, where)
            elif field.required:
                # `null` says what leaving it out says.
                known = [other.encode_name for other in fields]
                instead = "" if name in given else misspelt(name, given, known)
                if instead and _is_struct(field) and not isinstance(given[instead], Mapping):
                    instead = ""
                self._missing(field, where, instead)
                if instead:
                    self.value(given[instead], field.type, f"{path}.{instead}".lstrip("."))
        return found

    def _missing(self, field: FieldInfo, where: str, instead: str) -> None:
        info = _info(_choices(field.type)[0])
        if isinstance(info, inspect.StructType) and not instead:
            for inner in _fields(info.cls):
                if inner.required:
                    self._missing(inner, f"{where}.{inner.encode_name}", "")
            return
        hint = f" `{instead:.60}` is there: was it meant?" if instead else ""
        self._fault(f"{where} is missing: it must be {_words(field.type)}.{hint}")

    def _leaf(self, value: Any, type_: Any, path: str) -> Any:
        if value is None and _may_be_null(type_):
            return None
        for choice in _choices(type_):
            # A time in digits would be taken for seconds since 1970.
            strict = self._strict or isinstance(_info(choice), inspect.DateTimeType)
            for candidate in _candidates(value, choice) if self._mends else (value,):
                try:
                    return msgspec.convert(candidate, choice, strict=strict)
                except (msgspec.ValidationError, RecursionError, OverflowError):
                    pass
        what = _is(value, _info(_choices(type_)[0]), self._shows)
        self._fault(f"{path} must be {_words(type_)}, and {what}.")
        return value


def _is_empty(value: Any, type_: Any) -> bool:
    """Whether it is a text that stands for nothing."""
    if not isinstance(value, str) or value.strip():
        return False
    metas = (meta for choice in _choices(type_) for meta in _metas(choice))
    return any("empty_is_none" in (meta.extra or ()) for meta in metas)


def _candidates(value: Any, type_: Any) -> Iterator[Any]:
    """The value, and what it may be taken for."""
    yield value
    info = _info(type_)
    if type(value) is int and any("takes_whole_numbers" in (m.extra or ()) for m in _metas(type_)):
        yield str(value)
    is_free_text = isinstance(info, inspect.StrType) and not info.pattern
    if not isinstance(value, str) or is_free_text:
        return  # white space may be a part of it, as of a password
    bare = value.strip()
    yield bare
    for meta in _metas(type_):
        if meta.extra and "normalise" in meta.extra:
            yield meta.extra["normalise"](bare)


def _is(value: Any, info: inspect.Type, shows: bool) -> str:
    """What a value is instead."""
    match value:
        case None:
            return "is null"
        case bool():
            return f"is {str(value).lower()}"
        case int() | float():
            number = repr(value) if abs(value) < 1e15 else "too large"
            is_number = isinstance(info, inspect.IntType | inspect.FloatType)
            return f"is {number}" if is_number else f"is the number {number}"
        case list():
            return "is a list"
        case dict():
            return "is an object"
    return _is_text(str(value), info, shows)


def _is_text(text: str, info: inspect.Type, shows: bool) -> str:
    if not text:
        return "is empty"
    shown = f"is {words.shortened(text)}" if shows else "is another text"
    if not isinstance(info, inspect.StrType):
        return shown
    if info.max_length is not None and len(text) > info.max_length:
        return f"has {len(text):,} characters"
    control = _CONTROLS.search(text)
    if info.pattern and control is not None and not re.search(info.pattern, text):
        at, character = control.start() + 1, control[0]
        name = _NAMED_CHARACTERS.get(character, "a control character")
        return f"has {name} (U+{ord(character):04X}) at position {at}"
    return shown if info.pattern else f"has {len(text):,} characters"


def left_out(given: Mapping[str, Any], struct: Any, path: str) -> list[str]:
    """Members that nobody reads, though one that may be left out has nearly that name.

    Args:
        given: the members; they fit.
        struct: the Struct that they are read as.
        path: where they are.

    Returns:
        A sentence for each.
    """
    fields = {field.encode_name: field for field in _fields(struct)}
    missing = {name: None for name in fields if given.get(name) is None}
    found = []
    for name in islice(given, _MOST_COMPARED):
        value, field = given[name], fields.get(name)
        if field is None and (meant := misspelt(name[:_LONGEST_COMPARED], missing, ())):
            found.append(f"{path}.{name:.60} is not read: was {path}.{meant} meant?")
        elif field is not None and _is_struct(field) and isinstance(value, Mapping):
            found += left_out(value, _choices(field.type)[0], f"{path}.{name}")
    return found


def _is_struct(field: FieldInfo) -> bool:
    return isinstance(_info(_choices(field.type)[0]), inspect.StructType)


def misspelt(name: str, given: Mapping[str, Any], known: Collection[str]) -> str:
    """The name of a member that nobody knows and that may have been meant for another; or empty.

    Args:
        name: the other.
        given: the members.
        known: the names that are known.
    """
    # Of a stranger's thousands only so many: to compare each takes longer than to read it.
    unknown = islice((other for other in given if other not in known), _MOST_COMPARED)
    others = {_folded(other[:_LONGEST_COMPARED]): other for other in unknown}
    close = difflib.get_close_matches(_folded(name), others, n=1, cutoff=_MISSPELT)
    return others[close[0]] if close else ""


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _words(type_: Any) -> str:
    return words.listed(list(dict.fromkeys(_word(choice) for choice in _choices(type_))), "or")


@lru_cache(maxsize=1024)
def _word(choice: Any) -> str:
    return words.must_be(inspect.type_info(choice))


@lru_cache(maxsize=1024)
def _info(choice: Any) -> inspect.Type:
    """One of the choices, without what is said about it."""
    info = inspect.type_info(choice)
    return info.type if isinstance(info, inspect.Metadata) else info


@lru_cache(maxsize=256)
def _fields(struct: Any) -> tuple[FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def _choices(type_: Any) -> list[Any]:
    """The types that a value may have beside null, each by itself.

    msgspec 0.22 corrupts memory when it frees what it made of a union in which a text has a
    pattern, so it is given no union.
    """
    if typing.get_origin(type_) in (Union, UnionType):
        absent = (type(None), msgspec.UnsetType)
        return [choice for choice in typing.get_args(type_) if choice not in absent]
    return [type_]


def _may_be_null(type_: Any) -> bool:
    is_union = typing.get_origin(type_) in (Union, UnionType)
    return type_ is Any or (is_union and type(None) in typing.get_args(type_))


def _metas(type_: Any) -> list[msgspec.Meta]:
    given = typing.get_args(type_)[1:] if typing.get_origin(type_) is Annotated else ()
    return [meta for meta in given if isinstance(meta, msgspec.Meta)]


def _arguments(type_: Any) -> tuple[Any, ...]:
    """What a list or a dict is of; Any where that is not said."""
    if typing.get_origin(type_) is Annotated:
        type_ = typing.get_args(type_)[0]
    return typing.get_args(type_) or (Any,)
