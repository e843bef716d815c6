"""Reads orders with members of a wrong type, as plugins write them, leaving those members out.

WooCommerce disables a webhook at the seventh refusal, for all orders. So only a member that decides
the order's status refuses an order; a telephone number that is `false` does not, nor does PHP's
encoding of arrays: one with gaps is an object, and an empty one a list.

It runs on the event loop, ten microseconds an item: `MOST_ITEMS` of all lists together are read.
"""

import re
import typing
from collections.abc import Collection, Container, ValuesView
from types import UnionType
from typing import Any, TypeVar

import msgspec

from services.ingress.platforms.platform import Platform
from shared.validation import json_text, reading
from shared.validation.phrases import listed
from shared.validation.reading import InvalidValueError

T = TypeVar("T")
MOST_ITEMS = 2_000
_MISFIT = object()
_DIGITS = re.compile(r"[0-9]{1,19}")


def read(body: bytes, platform: Platform) -> Any:
    """Return the order of a body that the strict decoder refuses, as a `platform.order`.

    Args:
        body: the raw body.
        platform: that sent it.

    Raises:
        InvalidValueError: it is not JSON, or not an order of the platform.
        OrderGoneError: it reports that the order does not exist.
    """
    try:
        value = json_text.parse(body)
    except json_text.NotJsonError as error:
        raise InvalidValueError(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidValueError("The body must be a JSON object: an order.")
    if "id" not in value:
        platform.instead(value)
    fit = _Fit()
    if isinstance(id_ := value.get("id"), str) and _DIGITS.fullmatch(id_):
        value["id"] = int(id_)
    needed = {name: value[name] for name in platform.needed if name in value}
    kept = needed | fit.members(needed, platform.order)
    if fit.is_cut:
        # The order's status cannot be derived from a part of these lists.
        lists = [f"$.{name}" for name, given in needed.items() if isinstance(given, list | dict)]
        raise InvalidValueError(
            f"{listed(lists)} must have at most {MOST_ITEMS:,} items, those inside them counted."
        )
    # The faults go into the request log, which must not repeat a text of the body.
    found = fit.members(value, platform.order, but=needed) | kept
    return reading.read(found, platform.order, quotes=False)


def fitting(raw: msgspec.Raw, type_: type[T]) -> T | None:
    """Return the valid parts of a member that a plugin wrote; None if there are none.

    Args:
        raw: JSON.
        type_: to convert to.
    """
    try:
        found = _Fit().value(json_text.parse(bytes(raw)), type_)
    except json_text.NotJsonError:
        return None
    return None if found is _MISFIT or found is None else msgspec.convert(found, type_)


class _Fit:
    """Picks the valid parts of a value, up to `MOST_ITEMS` items of its lists.

    Attributes:
        is_cut: whether items were left out for that limit.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._left = MOST_ITEMS

    def members(
        self, value: dict[str, Any], struct: type[msgspec.Struct], but: Container[str] = ()
    ) -> dict[str, Any]:
        """Return the valid members of an object.

        Args:
            value: the object.
            struct: to convert to.
            but: names of members to leave out.
        """
        found = {}
        for field in msgspec.structs.fields(struct):
            name = field.encode_name
            if name in value and name not in but:
                fitting = self.value(value[name], field.type)
                if fitting is not _MISFIT:
                    found[name] = fitting
        return found

    def value(self, value: Any, type_: Any) -> Any:
        """Return the valid parts of a value; `_MISFIT` if there are none."""
        if value is None or type_ is msgspec.Raw:
            return value
        for choice in typing.get_args(type_) if isinstance(type_, UnionType) else (type_,):
            if typing.get_origin(choice) is list:
                items = value.values() if isinstance(value, dict) else value
                if isinstance(items, list | ValuesView):
                    return self._items(items, typing.get_args(choice)[0])
            elif isinstance(choice, type) and issubclass(choice, msgspec.Struct):
                if isinstance(value, dict):
                    return self.members(value, choice)
            else:
                try:
                    return msgspec.convert(value, choice)
                except (msgspec.ValidationError, OverflowError):
                    continue
        return _MISFIT

    def _items(self, items: Collection[Any], of: Any) -> list[Any]:
        found = []
        for item in items:
            if not self._left:
                self.is_cut = True
                break
            self._left -= 1
            fitting = self.value(item, of)
            if fitting is not _MISFIT and fitting is not None:
                found.append(fitting)
        return found
