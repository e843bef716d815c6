"""Refused values: all faults are reported together, and unambiguous ones are corrected."""

import gzip
import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from services.ingress.app import OPERATIONS
from services.kyc.api import Submission
from shared.bus.contract.events import EVENT_TYPES, Email, Line, TrackingStatus
from shared.config.settings import Settings
from shared.intake.event_bodies import DATA
from shared.validation import json_text
from shared.validation.phrases import must_be
from shared.validation.reading import MOST_FAULTS, InvalidValueError, read


class Person(msgspec.Struct, kw_only=True):
    name: Line
    email: Email
    age: Annotated[int, msgspec.Meta(ge=0, le=150)] | None = 7


class Thing(msgspec.Struct, kw_only=True):
    person: Person
    id: UUID
    password: str
    status: TrackingStatus = TrackingStatus.PENDING
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    tags: Annotated[list[Line], msgspec.Meta(max_length=2)] = []
    headers: dict[str, str] = {}


ID = "01a20999-db46-7249-a750-ddf0d0dd540c"
GOOD: dict[str, Any] = {
    "person": {"name": "Zoë", "email": "z@x.example"},
    "id": ID,
    "password": " as it is ",
}


def faults_of(value, **options):
    with pytest.raises(InvalidValueError) as refused:
        read(value, Thing, **options)
    return list(refused.value.faults)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b'{"a": NaN}', "The body is not JSON: it has NaN, which is not a number (RFC 8259, 6)."),
        (b'{"a": [-Infinity]}', "The body is not JSON: it has -Infinity, which is not a number"),
        (b'{"a": "x\ny"}', "The body is not JSON: invalid control character at line 1, column 9."),
        (b'{"a": 1,}', "The body is not JSON: "),
        (gzip.compress(b"{}", mtime=0), "The body is compressed, by gzip. Send it plain."),
        (
            b'{"a": {"b": ["", "x\\ud83d"]}}',
            "$.a.b[1] has half a character (U+D83D), as of an emoji",
        ),
        (b'{"a\\udc00": 1, "c": "\\ud83d"}', "$ has half a character (U+DC00), as of an emoji"),
        (b'{"a": 1e400}', "The body has a number that is too large to be read, 1e400…: "),
        (b'{"a": %b}' % (b"9" * 5_000), "The body has a number that is too large to be read, "),
    ],
)
def test_invalid_json_is_refused_with_a_reason(raw, fault):
    with pytest.raises(json_text.NotJsonError) as refused:
        json_text.parse(raw)
    assert str(refused.value).startswith(fault)
    assert "at at" not in str(refused.value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"items": [{"a": 1} {"b": 2}]}',
        b'{"metadata": {"a": 1} {"b": 2}}',
        b'{"a": ,}',
        b"[,1]",
    ],
)
def test_a_truncated_text_has_no_misleading_hint(raw):
    with pytest.raises(json_text.NotJsonError) as refused:
        json_text.parse(raw)
    for misleading in ("holds one event", "remove it"):
        assert misleading not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (b'{"a": [1],\n}', "There is a comma after the last member: remove it."),
        (b'{"a": [1 , ]}', "There is a comma after the last member: remove it."),
        (b'{"a": 1}\n{"a": 2}\n', "A request holds one event: send the next in another."),
        (b'// an order\n{"a": 1}', "It looks like a comment, which JSON does not have."),
        (b'{"a": 1, /* b */ "c": 2}', "It looks like a comment, which JSON does not have."),
        (b'{"a": 1, # b\n"c": 2}', "It looks like a comment, which JSON does not have."),
        (
            b"\n{'a': 1}",
            "as Python prints a dict: write it with `json.dumps`.",
        ),
    ],
)
def test_a_likely_mistake_is_named(raw, hint):
    with pytest.raises(json_text.NotJsonError) as refused:
        json_text.parse(raw)
    assert str(refused.value).endswith(f" {hint}")


def test_a_valid_value_is_read():
    thing = read(GOOD | {"at": "2026-01-01T00:00:00Z", "tags": ["a"]}, Thing)
    assert thing == msgspec.convert(GOOD | {"at": "2026-01-01T00:00:00Z", "tags": ["a"]}, Thing)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"person": 5}, "$.person must be an object, and is the number 5."),
        ({"id": "seven"}, "$.id must be a UUID, and is 'seven'."),
        ({"password": 5}, "$.password must be text, and is the number 5."),
        (
            {"status": "LOST"},
            "$.status must be PENDING, IN_TRANSIT, OUT_FOR_DELIVERY, DELIVERED or CANCELLED, and "
            "is 'LOST'.",
        ),
        (
            {"at": 1700000000},
            "$.at must be a time with a zone, such as 2026-11-24T03:00:00Z, and is the number "
            "1700000000.",
        ),
        ({"tags": ["a", "b", "c"]}, "$.tags must be a list of at most 2, and has 3."),
        ({"tags": {}}, "$.tags must be a list of at most 2, and is an object."),
        ({"headers": {"X-A": 5}}, "$.headers.X-A must be text, and is the number 5."),
        ({"headers": {"X-A": ["b"]}}, "$.headers.X-A must be text, and is a list."),
        ({"id": None}, "$.id is missing: it must be a UUID."),
    ],
)
def test_faults_are_readable(changes, fault):
    assert faults_of(GOOD | changes) == [fault]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("a\tb", "has a tab (U+0009) at position 2."),
        ("a\r\nBcc: b", "has a carriage return (U+000D) at position 2."),
        ("a\x07", "has a control character (U+0007) at position 2."),
        ("", "is empty."),
        ("x" * 201, "has 201 characters."),
    ],
)
def test_a_control_character_in_a_line_is_named(name, end):
    (fault,) = faults_of(GOOD | {"person": GOOD["person"] | {"name": name}})
    assert fault.startswith("$.person.name must be one line of 1 to 200 characters")
    assert fault.endswith(end)


def test_all_faults_are_reported_together():
    found = faults_of({"tags": [1, "b\x00"], "status": 5})
    assert [fault.split()[0] for fault in found] == [
        "$.person.name",
        "$.person.email",
        "$.id",
        "$.password",
        "$.status",
        "$.tags[0]",
        "$.tags[1]",
    ]


def test_the_number_of_reported_faults_is_limited():
    found = faults_of(GOOD | {"headers": {str(n): n for n in range(1000)}})
    assert len(found) == MOST_FAULTS + 1
    assert found[-1] == "There are more."


@pytest.mark.parametrize(
    "much",
    [
        {"tags": ["\x00"] * 10_000},
        {"tags": ["x"] * 10_000},
        {"headers": {str(n): n for n in range(10_000)}},
        {"person": {"name": 1}, "headers": dict.fromkeys(map(str, range(10_000)), 1)},
    ],
)
def test_oversized_collections_are_not_walked(much, monkeypatch):
    """It would block the event loop of a worker."""
    calls, convert = [], msgspec.convert

    def counted(*args, **named):
        calls.append(args)
        return convert(*args, **named)

    monkeypatch.setattr(msgspec, "convert", counted)
    faults_of(GOOD | much)
    assert len(calls) < 1_000


def test_a_too_long_list_is_a_fault():
    assert faults_of(GOOD | {"tags": ["x", 5, "y"]}) == [
        "$.tags must be a list of at most 2, and has 3."
    ]


def test_a_misspelt_name_is_named_and_its_value_is_checked():
    found = faults_of({"Person": {"name": "Z"}, "pass_word": "x", "id": ID})
    assert found[0].endswith("`Person` is there: was it meant?")
    assert found[1].startswith("$.Person.email is missing")
    assert found[2].endswith("`pass_word` is there: was it meant?")


def test_the_value_of_a_possible_part_is_not_checked():
    (found,) = faults_of(GOOD | {"person": {"name": "Z", "accounting_email": "none"}})
    assert found.startswith("$.person.email is missing")
    assert found.endswith("`accounting_email` is there: was it meant?")


def test_a_boolean_is_no_candidate_for_a_text():
    (found,) = faults_of(GOOD | {"person": {"name": "Z", "is_email": True}})
    assert found.startswith("$.person.email is missing")
    assert "was it meant" not in found


def test_a_text_is_no_candidate_for_an_object():
    found = faults_of({"person_": "Zoë", "id": ID, "password": "secret"})
    assert [fault.split()[0] for fault in found] == ["$.person.name", "$.person.email"]
    assert not any("was it meant" in fault for fault in found)


@pytest.mark.parametrize(
    ("changes", "member", "mended"),
    [
        ({"id": f" {ID}\n"}, "id", UUID(ID)),
        ({"status": None}, "status", TrackingStatus.PENDING),
        ({"tags": None}, "tags", []),
        ({"tags": [" a\t"]}, "tags", ["a"]),
        ({"at": None}, "at", None),
        ({"at": " 2026-01-01T00:00:00Z"}, "at", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_unambiguous_faults_are_corrected(changes, member, mended):
    assert getattr(read(GOOD | changes, Thing), member) == mended


def test_a_meaningful_null_is_kept():
    assert read({"name": "Z", "email": "z@x.example", "age": None}, Person).age is None
    assert read({"name": "Z", "email": "z@x.example"}, Person).age == 7


def test_a_free_text_is_kept_unmodified():
    assert read(GOOD | {"id": f" {ID}"}, Thing).password == " as it is "


def test_a_password_is_never_quoted():
    class Login(msgspec.Struct):
        password: Annotated[str, msgspec.Meta(max_length=5)]

    with pytest.raises(InvalidValueError) as refused:
        read({"password": "correct horse"}, Login)
    assert (
        str(refused.value)
        == "$.password must be text of at most 5 characters, and has 13 characters."
    )


@pytest.mark.parametrize("digits", ["2026", "1e3", "1700000000", "-1", "0.5"])
def test_digits_in_a_query_are_no_time(digits):
    class Query(msgspec.Struct):
        limit: int = 5
        since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    assert read({"limit": "7"}, Query, "", strict=False).limit == 7
    with pytest.raises(InvalidValueError, match=r"^since must be a time with a zone"):
        read({"since": digits}, Query, "", strict=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["person", "name", "email", "id", "at", "tags", "headers", "status"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)


@given(JSON)
def test_anything_is_read_or_refused_and_valid_values_are_unchanged(value):
    raw = msgspec.json.encode(value)
    strict = outcome(lambda: msgspec.json.decode(raw, type=Thing))
    found = outcome(lambda: read(msgspec.json.decode(raw), Thing))
    assert found is not None or strict is None
    assert strict is None or found == strict


def outcome(reading):
    try:
        return reading()
    except (InvalidValueError, msgspec.DecodeError):
        return None


def patterned(type_, path, seen):
    """Yield all types with a pattern inside of a type, with their paths."""
    match type_:
        case inspect.StructType(cls=cls, fields=fields):
            if cls not in seen:
                seen.add(cls)
                for field in fields:
                    yield from patterned(field.type, f"{path}.{field.name}", seen)
        case inspect.UnionType(types=types):
            for inner in types:
                yield from patterned(inner, path, seen)
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            yield from patterned(inner, f"{path}[]", seen)
        case inspect.DictType(value_type=inner):
            yield from patterned(inner, f"{path}{{}}", seen)
        case inspect.Metadata(type=inspect.StrType(pattern=str() as pattern)):
            yield path, type_, pattern
        case inspect.StrType(pattern=str() as pattern):
            yield path, type_, pattern


def test_every_pattern_has_a_description():
    structs = {
        struct for o in OPERATIONS for struct in (o.body, o.query) if isinstance(struct, type)
    }
    structs |= {*EVENT_TYPES.values(), *DATA.values(), Settings}
    seen: set[Any] = set()
    found = [
        place
        for struct in structs
        for place in patterned(inspect.type_info(struct), struct.__name__, seen)
    ]
    assert len(found) > 20
    for path, type_, pattern in found:
        words = must_be(type_)
        assert words not in ("another value", "text"), path
        assert isinstance(type_, inspect.Metadata), path
        assert "description" in (type_.extra_json_schema or {}), path
        assert pattern not in words
        assert not re.search(r"[\\^$\[\]{}|]", words), path


def test_a_text_or_an_object():
    """msgspec frees such a union twice, which crashes the interpreter."""
    kyc = {"business_registration_number": "RC 1", "business_address": "12 Marina Road"}
    for _ in range(300):
        for who in ("Zoë", {"a": None}):
            given = kyc | {"contact_person_details": who}
            assert read(given, Submission).contact_person_details == who
        for wrong in (5, "", "a\x00b", []):
            with pytest.raises(InvalidValueError, match=r"_details must be text .* or an object"):
                read(kyc | {"contact_person_details": wrong}, Submission)
        with pytest.raises(InvalidValueError, match="an object of 1 to 50 members, and has 0"):
            read(kyc | {"contact_person_details": {}}, Submission)


def test_every_type_of_a_request_has_a_description():
    structs = {
        struct for o in OPERATIONS for struct in (o.body, o.query) if isinstance(struct, type)
    }
    for struct in structs | set(DATA.values()):
        with pytest.raises(InvalidValueError) as refused:
            read({f.encode_name: float("nan") for f in msgspec.structs.fields(struct)}, struct)
        assert "another value" not in str(refused.value)
