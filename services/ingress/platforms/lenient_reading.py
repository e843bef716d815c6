"""Reading an order of which a plugin has made something odd: what does not fit is passed over.

WooCommerce disables a webhook after six refusals, for all orders. So only what decides whether and
where an order is may refuse one; a telephone number that is `false` does not. Nor does what PHP
writes of its arrays: one with gaps is an object, and an empty one a list.

It is done on the event loop, ten microseconds an item: of all lists `MOST_ITEMS` are read.
"""

import typing
from collections.abc import Collection, Container, ValuesView
from types import UnionType
from typing import Any

import msgspec

from services.ingress.platforms.platform import Platform
from shared.validation import json_text, reading
from shared.validation.reading import InvalidValueError
from shared.validation.words import listed

MOST_ITEMS = 2_000
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
    fit = _Fit()
    needed = {name: value[name] for name in platform.needed if name in value}
    kept = needed | fit.members(needed, platform.order)
    if fit.is_cut:
        # Without all of them it is not known where the order is.
        lists = [f"$.{name}" for name, given in needed.items() if isinstance(given, list | dict)]
        raise InvalidValueError(
            f"{listed(lists)} must have at most {MOST_ITEMS:,} items, those inside them counted."
        )
    return reading.read(fit.members(value, platform.order, but=needed) | kept, platform.order)


class _Fit:
    """Takes what fits, of at most `MOST_ITEMS` items.

    Attributes:
        is_cut: whether there were more.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._left = MOST_ITEMS

    def members(
        self, value: dict[str, Any], struct: type[msgspec.Struct], but: Container[str] = ()
    ) -> dict[str, Any]:
        """What fits of an object.

        Args:
            value: the object.
            struct: what it is read as.
            but: members that are passed over.
        """
        found = {}
        for field in msgspec.structs.fields(struct):
            name = field.encode_name
            if name in value and name not in but:
                fitting = self._value(value[name], field.type)
                if fitting is not _MISFIT:
                    found[name] = fitting
        return found

    def _value(self, value: Any, type_: Any) -> Any:
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
            fitting = self._value(item, of)
            if fitting is not _MISFIT and fitting is not None:
                found.append(fitting)
        return found
