"""A schema as people read it."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from services.ingress.docs.schema_view import example, members
from shared.docstrings import REF


class Part(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000, examples=["Zoë"])]
    weight: float | None = None


class Whole(msgspec.Struct):
    id: UUID
    kind: Literal["a", "b"]
    parts: list[Part]
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


def seen():
    (reference,), schemas = msgspec.json.schema_components([Whole], ref_template=REF)
    return reference, schemas


def test_each_member_is_a_row_and_those_inside_it_follow():
    rows = [(m.name, m.depth, m.type, m.required, m.note) for m in members(*seen())]
    assert rows == [
        ("id", 0, "UUID", True, ""),
        ("kind", 0, "a | b", True, ""),
        ("parts", 0, "list of object", True, ""),
        ("name", 1, "string", True, "1 to 2,000 characters"),
        ("weight", 1, "number or null", False, ""),
        ("limit", 0, "integer", False, "1 to 200; 50 when left out"),
    ]


def test_an_example_fits_its_schema():
    found = example(*seen())
    assert msgspec.convert(found, Whole)
    assert found["parts"] == [{"name": "Zoë", "weight": 1.0}]
    assert found["limit"] == 50
