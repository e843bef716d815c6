"""What documents take from docstrings: the same words whatever Python made them.

Since Python 3.13 the compiler strips the indent of docstrings; before, it is in `__doc__`, and
msgspec hands it on to the schemas as it is.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

REF = "#/components/schemas/{name}"
"""What a schema is referred to by, in OpenAPI as in AsyncAPI."""


def summary(thing: object) -> str:
    """The first line of a docstring; empty where there is none.

    Args:
        thing: a class or a function.
    """
    return inspect.cleandoc(thing.__doc__ or "").partition("\n")[0]


def schema_components(
    types: Sequence[Any],
) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """JSON Schemas of Structs, described by their docstrings.

    Args:
        types: Structs.

    Returns:
        A reference for each, and the schemas by name, those of what they hold among them.
    """
    references, schemas = msgspec.json.schema_components(types, ref_template=REF)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return references, schemas
