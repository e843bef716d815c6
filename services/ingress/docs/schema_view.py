"""Renders a JSON Schema for people: a row for each member, and an example."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
Schemas = Mapping[str, Schema]

# Examples by format, for a member whose Struct gives none.
_BY_FORMAT = {
    "uuid": "0199f3a4-7c1e-7b52-9d0f-0f5d7c0a51e1",
    "date-time": "2026-11-24T10:00:00Z",
}
INSTEAD = "x-instead-of"
"""The schema key that names the member which this one may replace."""
_BY_TYPE = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a body.

    Attributes:
        name: without the names of the members around it.
        depth: the number of members around it.
        type: a readable type.
        required: whether it must be present.
        note: its limits as text; may be empty.
    """

    name: str
    depth: int
    type: str
    required: bool
    note: str


def members(schema: Schema, schemas: Schemas, depth: int = 0) -> Iterator[Member]:
    """Yield the members of an object's schema, depth first.

    Args:
        schema: of an object, or a reference to one.
        schemas: the targets of references, by name.
        depth: of the object within others.
    """
    schema = _resolved(schema, schemas)
    required = schema.get("required", ())
    for name, given in schema.get("properties", {}).items():
        of = _resolved(given, schemas)
        yield Member(name, depth, _type(of, schemas), name in required, _note(of, schemas))
        for nested in _alternatives(of, schemas):
            is_list = nested.get("type") == "array"
            item = _resolved(nested.get("items", {}), schemas) if is_list else nested
            yield from members(item, schemas, depth + 1)


def example(schema: Schema, schemas: Schemas) -> Any:
    """Return a value that fits a schema: its own example if it has one."""
    schema = _resolved(schema, schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("default"):
        return schema["default"]
    if "properties" in schema:
        return {
            name: example(of, schemas)
            for name, of in schema["properties"].items()
            if INSTEAD not in of
        }
    for choice in ("enum", "anyOf", "oneOf"):
        if schema.get(choice):
            first = schema[choice][0]
            return first if choice == "enum" else example(first, schemas)
    if schema.get("type") == "array":
        return [example(schema.get("items", {}), schemas)]
    if schema.get("format") in _BY_FORMAT:
        return _BY_FORMAT[schema["format"]]
    return _BY_TYPE.get(schema.get("type", "string"), {})


def _resolved(schema: Schema, schemas: Schemas) -> Schema:
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**schemas[schema["$ref"].rpartition("/")[2]], **beside}
    return schema


def _alternatives(schema: Schema, schemas: Schemas) -> list[Schema]:
    return [_resolved(given, schemas) for given in schema.get("anyOf", [schema])]


def _type(schema: Schema, schemas: Schemas) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(given, schemas) for given in _alternatives(schema, schemas))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(_resolved(schema.get('items', {}), schemas), schemas)}"
    kind = str(schema.get("type", "anything"))
    return {"uuid": "UUID", "date-time": "time, ISO 8601 with zone", "date": "day"}.get(
        schema.get("format", ""), kind
    )


def _note(schema: Schema, schemas: Schemas) -> str:
    """Return limits and default; the type's description, if any, since a pattern is unreadable."""
    parts = []
    words = [_words(of) for of in (schema, *_alternatives(schema, schemas)) if _words(of)]
    if words:
        parts.append(words[0])
    elif schema.get("minLength") and "maxLength" in schema:
        parts.append(f"{schema['minLength']} to {schema['maxLength']:,} characters")
    elif "maxLength" in schema:
        parts.append(f"at most {schema['maxLength']:,} characters")
    elif "minimum" in schema and "maximum" in schema:
        parts.append(f"{schema['minimum']} to {schema['maximum']}")
    elif "maxProperties" in schema:
        parts.append(f"at most {schema['maxProperties']} members")
    if of_names := _words(schema.get("propertyNames", {})):
        parts.append(f"names: {of_names}")
    if INSTEAD in schema:
        parts.append(f"or {schema[INSTEAD]}")
    default = schema.get("default")
    if default not in (None, ""):
        parts.append(f"{default} when left out")
    return "; ".join(parts)


def _words(schema: Schema) -> str:
    """Return the description of a `Meta`; the docstring of a class describes no limit."""
    is_class = "properties" in schema or "enum" in schema
    return "" if is_class else str(schema.get("description", ""))
