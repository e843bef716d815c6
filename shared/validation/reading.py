"""Converts plain objects to a Struct, corrects unambiguous faults and reports all others.

It runs only after a strict decoder has refused the value, so speed does not matter. Corrected are:
`null` for an optional field, and an empty text if its `Meta` has `extra={"empty_is_none": True}`;
surrounding white space of a text that may have none; a whole number for a text with
`{"takes_whole_numbers": True}`; and a text that the type's `{"normalise": …}` makes valid.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

from shared.validation import json_text, names, phrases, types
from shared.validation.normalisation import is_time_without_zone

T = TypeVar("T")
MOST_FAULTS = 20
_NAMED_CHARACTERS = {"\t": "a tab", "\n": "a line feed", "\r": "a carriage return"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class InvalidValueError(ValueError):
    """A value does not fit its type.

    Args:
        faults: all faults, each a sentence with the path of the value.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(" ".join(faults))
        self.faults = faults


def read_json(raw: bytes, type_: type[T]) -> T:
    """Convert a JSON text to a Struct; see `read`.

    Raises:
        InvalidValueError: it is not JSON, or does not fit.
    """
    try:
        value = json_text.parse(raw)
    except json_text.NotJsonError as error:
        raise InvalidValueError(str(error)) from None
    return read(value, type_)


def describe_faults(raw: bytes, type_: type[Any]) -> str:
    """Return why a strict decoder refuses a JSON text, without quoting its values, for a log.

    Args:
        raw: the text.
        type_: a Struct.
    """
    try:
        read(json_text.parse(raw), type_, corrects=False, quotes=False)
    except json_text.NotJsonError as error:
        return str(error)
    except InvalidValueError as error:
        return str(error)
    return f"It is not a valid {type_.__name__}."


def read(
    value: Any,
    type_: type[T],
    path: str = "$",
    *,
    strict: bool = True,
    corrects: bool = True,
    quotes: bool = True,
) -> T:
    """Convert plain objects to a Struct.

    Args:
        value: from JSON, or the parameters of a query string by name.
        type_: a Struct.
        path: of the value, the prefix of its members' paths.
        strict: whether a text is refused for a number. In a query string everything is text.
        corrects: whether unambiguous faults are corrected.
        quotes: whether faults quote wrong texts: right for the sender, wrong for a log.

    Raises:
        InvalidValueError: it does not fit.
    """
    walk = _Walk(strict, corrects, quotes)
    with suppress(_TooManyFaultsError):
        corrected = walk.value(value, type_, path)
        if not walk.faults:
            try:
                return msgspec.convert(corrected, type_, strict=strict)
            except (msgspec.ValidationError, RecursionError, OverflowError):
                walk.faults.append(f"{path} must be {types.description(type_)}.")
    faults = walk.faults[:MOST_FAULTS]
    if len(walk.faults) > MOST_FAULTS:
        faults.append("There are more.")
    raise InvalidValueError(*faults)


class _TooManyFaultsError(Exception):
    """More faults were found than are reported."""


class _Walk:
    """Walks a value and collects its faults.

    It does not descend into oversized collections, and stops at one fault more than `MOST_FAULTS`,
    so that a list of thousands does not block other requests.
    """

    def __init__(self, strict: bool, corrects: bool, quotes: bool) -> None:
        self._strict = strict
        self._corrects = corrects
        self._quotes = quotes
        self.faults: list[str] = []

    def value(self, value: Any, type_: Any, path: str) -> Any:
        """Return the corrected value; add the remaining faults to `faults`."""
        if type_ is msgspec.Raw:
            return msgspec.Raw(msgspec.json.encode(value))
        for choice in types.choices(type_):
            match types.info(choice), value:
                case inspect.StructType(cls=struct), dict():
                    return self._members(value, struct, path)
                case inspect.DictType(), dict():
                    inner = types.arguments(choice)[-1]
                    if not self._is_bound(value, choice, path):
                        return value
                    self._names(value, choice, path)
                    if self._corrects and not types.may_be_null(inner):
                        value = {name: v for name, v in value.items() if v is not None}
                    return {n: self.value(v, inner, f"{path}.{n:.60}") for n, v in value.items()}
                case inspect.ListType() | inspect.VarTupleType(), list():
                    inner = types.arguments(choice)[0]
                    if not self._is_bound(value, choice, path):
                        return value
                    return [self.value(v, inner, f"{path}[{n}]") for n, v in enumerate(value)]
        return self._leaf(value, type_, path)

    def _fault(self, sentence: str) -> None:
        self.faults.append(sentence)
        if len(self.faults) > MOST_FAULTS:
            raise _TooManyFaultsError

    def _is_bound(self, value: Collection[Any], type_: Any, path: str) -> bool:
        info = types.info(type_)
        least, most = getattr(info, "min_length", None), getattr(info, "max_length", None)
        is_bound = len(value) >= (least or 0) and (most is None or len(value) <= most)
        if not is_bound:
            self._fault(f"{path} must be {types.description(type_)}, and has {len(value)}.")
        return is_bound

    def _names(self, value: Collection[str], type_: Any, path: str) -> None:
        of = types.arguments(type_)[0]
        for name in () if of is str else value:
            try:
                msgspec.convert(name, of)
            except msgspec.ValidationError:
                what = _is_text(name, types.info(of), self._quotes)
                self._fault(f"{path}: each name must be {types.description(of)}, and one {what}.")

    def _members(self, members: Mapping[str, Any], struct: Any, path: str) -> dict[str, Any]:
        found = {}
        fields = types.fields(struct)
        for field in fields:
            name, where = field.encode_name, f"{path}.{field.encode_name}".lstrip(".")
            value = members.get(name)
            if self._corrects and not field.required and _is_empty(value, field.type):
                continue
            is_null = name in members and (types.may_be_null(field.type) or not self._corrects)
            if value is not None or is_null:
                found[name] = self.value(value, field.type, where)
            elif field.required:
                # `null` counts as missing.
                known = [other.encode_name for other in fields]
                near, parts = (
                    ("", []) if name in members else names.alternatives(name, members, known)
                )
                instead = [near] if near else parts
                instead = [other for other in instead if _may_be(members[other], field)]
                self._missing(field, where, instead)
                if near in instead:
                    self.value(members[near], field.type, f"{path}.{near}".lstrip("."))
        return found

    def _missing(self, field: FieldInfo, where: str, instead: Sequence[str]) -> None:
        info = types.info(types.choices(field.type)[0])
        if isinstance(info, inspect.StructType) and not instead:
            for inner in types.fields(info.cls):
                if inner.required:
                    self._missing(inner, f"{where}.{inner.encode_name}", ())
            return
        hint = ""
        if instead:
            named = phrases.listed([f"`{name:.60}`" for name in instead])
            was = (
                "is there: was it meant?"
                if len(instead) == 1
                else ("are there: was one of them meant, or all of them joined?")
            )
            hint = f" {named} {was}"
        self._fault(f"{where} is missing: it must be {types.description(field.type)}.{hint}")

    def _leaf(self, value: Any, type_: Any, path: str) -> Any:
        if value is None and types.may_be_null(type_):
            return None
        for choice in types.choices(type_):
            # Otherwise digits would be read as seconds since 1970.
            strict = self._strict or isinstance(types.info(choice), inspect.DateTimeType)
            for candidate in _candidates(value, choice) if self._corrects else (value,):
                try:
                    return msgspec.convert(candidate, choice, strict=strict)
                except (msgspec.ValidationError, RecursionError, OverflowError):
                    pass
        what = _is(value, types.info(types.choices(type_)[0]), self._quotes)
        self._fault(f"{path} must be {types.description(type_)}, and {what}.")
        return value


def _is_empty(value: Any, type_: Any) -> bool:
    """Return whether a value is an empty text that counts as missing."""
    if not isinstance(value, str) or value.strip():
        return False
    metas = (meta for choice in types.choices(type_) for meta in types.metas(choice))
    return any("empty_is_none" in (meta.extra or ()) for meta in metas)


def _candidates(value: Any, type_: Any) -> Iterator[Any]:
    """Yield the value, then its possible corrections."""
    yield value
    info = types.info(type_)
    if type(value) is int and any(
        "takes_whole_numbers" in (m.extra or ()) for m in types.metas(type_)
    ):
        yield str(value)
    is_free_text = isinstance(info, inspect.StrType) and not info.pattern
    if not isinstance(value, str) or is_free_text:
        return  # white space may be significant, as in a password
    stripped = value.strip()
    yield stripped
    for meta in types.metas(type_):
        if meta.extra and "normalise" in meta.extra:
            yield meta.extra["normalise"](stripped)


def _is(value: Any, info: inspect.Type, quotes: bool) -> str:
    """Describe a wrong value, such as `is null`."""
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
    return _is_text(str(value), info, quotes)


def _is_text(text: str, info: inspect.Type, quotes: bool) -> str:
    if not text:
        return "is empty"
    shown = f"is {phrases.shortened(text)}" if quotes else "is another text"
    if isinstance(info, inspect.DateTimeType) and is_time_without_zone(text):
        return f"{shown}, which has no zone"
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


def unread_members(
    members: Mapping[str, Any],
    struct: Any,
    path: str,
    others: Mapping[str, str] | None = None,
) -> list[str]:
    """Return a warning for each unread member whose name is close to that of a missing field.

    Args:
        members: the members, which are valid.
        struct: the Struct that they are read as.
        path: of the object.
        others: common other names, in the form of `names.folded`, with the field each may mean.
    """
    fields = {field.encode_name: field for field in types.fields(struct)}
    missing = {name: None for name in fields if members.get(name) is None}
    known = {names.folded(name): name for name in fields} | dict(others or {})
    found = []
    for name in islice(members, names.MOST_COMPARED):
        value, field = members[name], fields.get(name)
        if field is None:
            short = name[: names.LONGEST_COMPARED]
            meant = next((known[form] for form in names.forms(short) if form in known), "")
            # A field that is present was not meant, and neither was one with a similar name.
            if (meant or (meant := names.misspelt(short, missing, ()))) in missing:
                found.append(f"{path}.{name:.60} is not read: was {path}.{meant} meant?")
        elif _is_struct(field) and isinstance(value, Mapping):
            found += unread_members(value, types.choices(field.type)[0], f"{path}.{name}")
    return found


def _may_be(value: Any, field: FieldInfo) -> bool:
    """Return whether a value has a kind that fits a field: a boolean `is_email` is no address."""
    if isinstance(value, bool):
        return isinstance(types.info(types.choices(field.type)[0]), inspect.BoolType)
    return isinstance(value, Mapping) or not _is_struct(field)


def _is_struct(field: FieldInfo) -> bool:
    return isinstance(types.info(types.choices(field.type)[0]), inspect.StructType)
