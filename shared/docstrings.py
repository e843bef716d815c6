"""Extracts documentation from docstrings, independent of the Python version.

Python 3.13 strips the indentation of docstrings; earlier versions keep it in `__doc__`, and msgspec
copies it unmodified into schemas.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

REF = "#/components/schemas/{name}"
"""Template of a reference to a schema in OpenAPI and AsyncAPI."""


def summary(thing: object) -> str:
    """Return the first line of a docstring; empty if there is none.

    Args:
        thing: a class or a function.
    """
    return inspect.cleandoc(thing.__doc__ or "").partition("\n")[0]


def schema_components(
    types: Sequence[Any],
) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """Return JSON Schemas of Structs, with their docstrings as descriptions.

    Args:
        types: Structs.

    Returns:
        A reference for each, and all schemas by name, including nested ones.
    """
    references, schemas = msgspec.json.schema_components(types, ref_template=REF)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return references, schemas
