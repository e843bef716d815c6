"""Reading an order of which a plugin has made something odd: what does not fit is passed over.

WooCommerce disables a webhook after six refusals, for all orders. So only what decides whether and
where an order is may refuse one; a telephone number that is `false` does not. Nor does what PHP
writes of its arrays: one with gaps is an object, and an empty one a list.
"""

import typing
from types import UnionType
from typing import Any

import msgspec

from services.ingress.platforms.platform import Platform
from shared.validation import json_text, reading
from shared.validation.reading import InvalidValueError

_MISFIT = object()


def read(body: bytes, platform: Platform) -> Any:
    """The order of a body that the strict decoder has refused.

    Args:
        body: the raw body.
        platform: whose.

    Raises:
        InvalidValueError: it is no JSON, or no order of the platform's.
    """
    try:
        value = json_text.parse(body)
    except json_text.NotJsonError as error:
        raise InvalidValueError(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidValueError("The body must be a JSON object: an order.")
    wrapped = value.get("order")
    if platform.wrapped and isinstance(wrapped, dict) and "id" not in value:
        raise InvalidValueError(platform.wrapped)
    kept = _members(value, platform.order)
    for name in platform.needed:
        if name in value and name not in kept:
            kept[name] = value[name]
    return reading.read(kept, platform.order)


def _members(value: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    """What fits of an object."""
    found = {}
    for field in msgspec.structs.fields(struct):
        if field.encode_name in value:
            fitting = _fitting(value[field.encode_name], field.type)
            if fitting is not _MISFIT:
                found[field.encode_name] = fitting
    return found


def _fitting(value: Any, type_: Any) -> Any:
    if value is None or type_ is msgspec.Raw:
        return value
    for choice in typing.get_args(type_) if isinstance(type_, UnionType) else (type_,):
        if typing.get_origin(choice) is list:
            items = [*value.values()] if isinstance(value, dict) else value
            if isinstance(items, list):
                of = typing.get_args(choice)[0]
                fitted = [_fitting(item, of) for item in items]
                return [item for item in fitted if item is not _MISFIT and item is not None]
        elif isinstance(choice, type) and issubclass(choice, msgspec.Struct):
            if isinstance(value, dict):
                return _members(value, choice)
        else:
            try:
                return msgspec.convert(value, choice)
            except (msgspec.ValidationError, OverflowError):
                continue
    return _MISFIT
