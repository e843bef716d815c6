"""JSON Schemas rendered for people."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from services.ingress.docs.schema_view import example, members
from shared.docstrings import REF
from shared.intake.event_bodies import BODIES


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


def test_each_member_is_a_row_followed_by_its_members():
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


Bare = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=9, pattern="^[^\\t]+$", description="text without tabs"),
]


class State(StrEnum):
    """Where it is."""

    HERE = "here"


class Inner(msgspec.Struct):
    """What is in it."""

    deep: int


class Thing(msgspec.Struct):
    """One."""

    name: Bare
    state: State
    inner: Inner
    metadata: Annotated[dict[Bare, str], msgspec.Meta(max_length=2, description="two of them")]
    plain: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    perhaps: Bare | None = "x"


def notes(struct):
    (schema,), components = msgspec.json.schema_components([struct], ref_template=REF)
    return {member.name: member.note for member in members(schema, components)}


def test_a_pattern_is_shown_by_its_description():
    """The table showed the length alone, and the API refused texts of that length."""
    assert notes(Thing) == {
        "name": "text without tabs",
        "state": "",  # what a type is for is no limit of it
        "inner": "",
        "deep": "",
        "metadata": "two of them; names: text without tabs",
        "plain": "1 to 5 characters",
        "perhaps": "text without tabs; x when left out",
    }
    said = notes(BODIES["order.created"])
    assert "without control characters" in said["order_number"]
    assert "percent-encoded" in said["tracking_url"]
    assert said["metadata"].endswith("names: 1 to 40 characters, without control characters")
