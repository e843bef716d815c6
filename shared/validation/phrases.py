"""Phrases for error messages: descriptions of types, quoted values and lists."""

from collections.abc import Sequence

from msgspec import inspect

_SHOWN = 60  # characters of a quoted value


def must_be(type_: inspect.Type) -> str:
    """Return a description of a type that completes "must be".

    Args:
        type_: of `msgspec.inspect`. The description in its `Meta` is used if there is one; a type
            with a pattern needs one, because patterns are not shown.
    """
    match type_:
        case inspect.Metadata(extra_json_schema={"description": str() as description}):
            return description
        case inspect.Metadata(type=inner):
            return must_be(inner)
        case inspect.UnionType(types=types):
            return _either([must_be(t) for t in types if not isinstance(t, inspect.NoneType)])
        case inspect.LiteralType(values=values):
            return _either([str(value) for value in values if value])
        case inspect.EnumType(cls=cls):
            return _either([str(choice.value) for choice in cls])
        case inspect.StrType(min_length=least, max_length=most):
            return f"text{_characters(least, most)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number{_range(least, most)}"
        case inspect.FloatType(gt=above):
            return "a number" if above is None else f"a number above {above:g}"
        case inspect.UUIDType():
            return "a UUID"
        case inspect.DateTimeType():
            return "a time with a zone, such as 2026-11-24T03:00:00Z"
        case inspect.DateType():
            return "a day, such as 2026-12-03"
        case inspect.BytesType():
            return "base64"
        case inspect.ListType(max_length=most) | inspect.VarTupleType(max_length=most):
            return "a list" if most is None else f"a list of at most {most}"
        case inspect.DictType(min_length=least, max_length=most) if most is not None:
            return f"an object of {least or 0} to {most} members"
        case inspect.StructType() | inspect.DictType():
            return "an object"
    return "another value"


def shortened(value: str) -> str:
    """Return a value in quotes, escaped, and cut to 60 characters."""
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")


def listed(words: Sequence[str], last: str = "and") -> str:
    """Join words as in `a, b and c`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def _either(words: Sequence[str]) -> str:
    return listed(list(dict.fromkeys(words)), "or")


def _characters(least: int | None, most: int | None) -> str:
    if most is None:
        return ""
    return f" of {least} to {most:,} characters" if least else f" of at most {most:,} characters"


def _range(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    return f", {least} or more" if least is not None else ""
