"""Order ids are derived from the sender's order numbers, without a query."""

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.contract.events import decode
from shared.ids import LONGEST_NUMBER, new_id, normalised_number, order_of_number
from shared.intake.bodies import BodyError, read
from tests.unit.shared.intake.test_bodies import ORDER

ACCOUNT = new_id()
UPDATE = {"type": "order.status_changed", "tracking_status": "DELIVERED"}
CANCELLATION = {"type": "order.cancelled", "reason": "Out of stock."}


def sent(body, key=None, account=ACCOUNT):
    order_id, message = read(json.dumps(body).encode(), account, time.time(), None, key)
    event = decode(message.type, message.body)
    assert (event.order_id, event.account_id) == (order_id, account)
    return event, message


def refused(body):
    with pytest.raises(BodyError) as error:
        sent(body)
    return error.value.faults


@pytest.mark.parametrize("update", [UPDATE, CANCELLATION])
@pytest.mark.parametrize("key", [None, "any-key"])
def test_an_update_by_number_names_the_order_with_it(update, key):
    order, _ = sent(ORDER | {"order_number": "A-1001"}, key)
    for named in (
        {"order_number": "A-1001"},
        {"order_number": " A-1001\n"},
        {"order_number": "A-1001", "order_id": str(order.order_id)},
        {"order_number": None, "order_id": str(order.order_id)},
        {"order_number": "A-1001", "order_id": None},
    ):
        event, message = sent(update | named)
        assert event.order_id == order.order_id
        assert message.correlation_id == str(order.order_id)
        shaped = {"type": update["type"], "data": update | named}
        assert sent(shaped)[0] == event


def test_the_number_takes_precedence_over_the_key():
    numbered = ORDER | {"order_number": "A-1001"}
    ids = {sent(numbered, key)[0].order_id for key in (None, "one", "another")}
    assert len(ids) == 1
    assert sent(numbered, account=new_id())[0].order_id not in ids
    # A key with the same text names another order.
    assert sent(ORDER, "A-1001")[0].order_id not in ids
    assert sent(numbered | {"order_number": "a-1001"})[0].order_id not in ids


def test_the_message_id_depends_on_the_body():
    numbered = ORDER | {"order_number": "A-1001"}
    first = sent(numbered)[1].message_id
    assert sent(numbered)[1].message_id == first
    assert sent(numbered, "a key")[1].message_id == first
    assert sent(numbered | {"address": "elsewhere"})[1].message_id != first
    assert sent(numbered, account=new_id())[1].message_id != first
    # An update may be repeated.
    again = UPDATE | {"order_number": "A-1001"}
    assert sent(again)[1].message_id != sent(again)[1].message_id


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("  A-1\t", "A-1"),
        (1001, "1001"),
        (-7, "-7"),
        ("Zoe\u0308-1", "Zo\u00eb-1"),
        ("№ 5 / 2026", "№ 5 / 2026"),
        ("x" * 100, "x" * 100),
    ],
)
def test_numbers_are_normalised(given, understood):
    event, _ = sent(ORDER | {"order_number": given})
    assert event.order_number == understood
    assert event.order_id == order_of_number(ACCOUNT, understood)
    assert sent(UPDATE | {"order_number": given})[0].order_id == event.order_id


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "is empty"),
        ("   ", "is '   '"),
        ("x" * 101, "has 101 characters"),
        ("A\r\nBcc: all@x.example", "a carriage return"),
        (10.5, "in quotes.*is the number 10.5"),
        (True, "is true"),
        (10**101, "is the number too large"),
        (10**3000, "is the number too large"),
        ([1], "is a list"),
        ({"id": 1}, "is an object"),
        # Three code points in NFC.
        ("\U0001d160" * 40, "has 120 characters"),
    ],
)
def test_invalid_numbers_are_refused(given, why):
    for body in (ORDER, UPDATE):
        (fault,) = refused(body | {"order_number": given})
        assert "order_number" in fault
        with pytest.raises(BodyError, match=why):
            sent(body | {"order_number": given})


@pytest.mark.parametrize("update", [UPDATE, CANCELLATION])
def test_an_update_without_an_order_is_refused(update):
    for body in (update, {"type": update["type"], "data": update}):
        (fault,) = refused(body)
        assert "`order_id`" in fault
        assert "`order_number`" in fault
    (fault,) = refused(update | {"orderNumber": "A-1", "order_number": None})
    assert "`orderNumber` is there" in fault


def test_all_faults_are_reported_together():
    faults = refused({"type": "order.status_changed", "tracking_status": "LOST", "note": 5})
    assert [fault.split()[0] for fault in faults] == ["The", "$.tracking_status", "$.note"]


@pytest.mark.parametrize("update", [UPDATE, CANCELLATION])
def test_an_id_and_a_number_of_two_orders_are_refused(update):
    (fault,) = refused(update | {"order_number": "A-1", "order_id": str(new_id())})
    assert "leave one of them out" in fault


def test_values_for_our_own_fields_are_ignored():
    for theirs in ("x", 5, [{}], {"a": 1}, None, str(new_id())):
        event, message = sent(ORDER | {"order_id": theirs, "account_id": theirs})
        assert str(event.order_id) != theirs
        assert message.message_id == str(event.order_id)
        update, _ = sent(UPDATE | {"order_number": "A-1", "account_id": theirs})
        assert update.account_id == ACCOUNT


def test_an_order_without_a_number_is_encoded_as_before():
    _, message = sent(ORDER)
    assert list(json.loads(message.body)) == ["order_id", "account_id", *ORDER]
    _, message = sent(UPDATE | {"order_id": str(new_id())})
    assert set(json.loads(message.body)) == {"order_id", "account_id", "tracking_status", "note"}


@given(st.text(max_size=110), st.sampled_from(["NFC", "NFD"]))
def test_any_text_is_a_number_or_refused(text, form):
    text = unicodedata.normalize(form, text)
    try:
        event, _ = sent(ORDER | {"order_number": text})
    except BodyError:
        assert (
            not 0 < len(unicodedata.normalize("NFC", text.strip())) <= LONGEST_NUMBER
            or len(text) > LONGEST_NUMBER
            or any(ord(c) < 0x20 or ord(c) == 0x7F for c in text.strip())
            or any("\ud800" <= c <= "\udfff" for c in text)
        )
        return
    assert event.order_number == normalised_number(text)
    for spelling in (f" {text}\n", unicodedata.normalize("NFC", text)):
        assert sent(UPDATE | {"order_number": spelling})[0].order_id == event.order_id


def texts(most):
    return st.text(max_size=3) | st.integers(most - 1, most + 1).map("x".__mul__)


METADATA = st.dictionaries(texts(40), texts(200), max_size=3) | st.integers(19, 21).map(
    lambda n: {str(one): "" for one in range(n)}
)


@given(METADATA)
def test_metadata_is_kept_unmodified_or_refused(metadata):
    # Surrounding white space is removed.
    kept = {
        name: value if is_text(value, 0, 200) else value.strip() for name, value in metadata.items()
    }
    body = ORDER | {"metadata": metadata}
    names_are_right = all(is_text(name, 1, 40) for name in kept)
    if len(kept) <= 20 and names_are_right and all(is_text(v, 0, 200) for v in kept.values()):
        assert sent(body)[0].metadata == kept
    else:
        assert all(fault.startswith("$.metadata") for fault in refused(body))


def is_text(text, least, most):
    return least <= len(text) <= most and is_line(text)


def is_line(text):
    return not any(ord(c) < 0x20 or ord(c) == 0x7F for c in text)


def test_every_fault_of_metadata_is_reported():
    faults = refused(ORDER | {"metadata": {"": "x", "a\nb": "x", "n": 5}})
    assert [fault.partition(" must be ")[0] for fault in faults] == [
        "$.metadata: each name",
        "$.metadata: each name",
        "$.metadata.n",
    ]
    (fault,) = refused(ORDER | {"metadata": {str(n): "x" for n in range(21)}})
    assert "at most 20 members" in fault
    (fault,) = refused(ORDER | {"metadata": ["a"]})
    assert "is a list" in fault
