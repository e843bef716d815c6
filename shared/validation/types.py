"""Inspects msgspec types, with unions split into their members."""

import typing
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

from shared.validation import phrases


def description(type_: Any) -> str:
    """Return what a value of the type must be, to complete "must be"."""
    described = dict.fromkeys(_described(choice) for choice in choices(type_))
    return phrases.listed(list(described), "or")


@lru_cache(maxsize=1024)
def _described(choice: Any) -> str:
    return phrases.must_be(inspect.type_info(choice))


@lru_cache(maxsize=1024)
def info(choice: Any) -> inspect.Type:
    """Return the inspected type of a choice without its metadata."""
    found = inspect.type_info(choice)
    return found.type if isinstance(found, inspect.Metadata) else found


@lru_cache(maxsize=256)
def fields(struct: Any) -> tuple[FieldInfo, ...]:
    """Return the fields of a Struct; cached."""
    return msgspec.structs.fields(struct)


def choices(type_: Any) -> list[Any]:
    """Return the members of a union without None and UNSET, or the type itself.

    Each is converted alone, because msgspec 0.22 corrupts memory when it frees a union in which a
    text has a pattern.
    """
    if typing.get_origin(type_) in (Union, UnionType):
        absent = (type(None), msgspec.UnsetType)
        return [choice for choice in typing.get_args(type_) if choice not in absent]
    return [type_]


def may_be_null(type_: Any) -> bool:
    """Return whether None is a valid value."""
    is_union = typing.get_origin(type_) in (Union, UnionType)
    return type_ is Any or (is_union and type(None) in typing.get_args(type_))


def metas(type_: Any) -> list[msgspec.Meta]:
    """Return the `Meta` annotations of a choice."""
    annotations = typing.get_args(type_)[1:] if typing.get_origin(type_) is Annotated else ()
    return [meta for meta in annotations if isinstance(meta, msgspec.Meta)]


def arguments(type_: Any) -> tuple[Any, ...]:
    """Return the type arguments of a list or a dict; Any if it has none."""
    if typing.get_origin(type_) is Annotated:
        type_ = typing.get_args(type_)[0]
    return typing.get_args(type_) or (Any,)
