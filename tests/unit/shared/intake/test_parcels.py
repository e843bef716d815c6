"""Parcel fields of orders and updates."""

import pytest

from shared.ids import new_id
from shared.intake.bodies import BodyError
from tests.unit.shared.intake.test_bodies import ORDER
from tests.unit.shared.intake.test_order_numbers import sent

UPDATE = {
    "type": "order.status_changed",
    "order_id": str(new_id()),
    "tracking_status": "IN_TRANSIT",
}


@pytest.mark.parametrize("body", [ORDER, UPDATE])
def test_orders_and_updates_may_have_a_parcel(body):
    event, _ = sent(
        body
        | {
            "carrier": " Swift Parcels ",
            "tracking_number": 340434161094,
            "tracking_url": "https://track.carrier.example/?id=1&x=%20#top",
            "estimated_delivery": "2026-12-03",
        }
    )
    assert event.carrier == "Swift Parcels"
    assert event.tracking_number == "340434161094"
    assert event.tracking_url == "https://track.carrier.example/?id=1&x=%20#top"
    assert event.estimated_delivery.isoformat() == "2026-12-03"


@pytest.mark.parametrize(
    "url",
    [
        "https://carrier.example",
        "https://carrier.example:8443/a/b;c?d=[1]&e='x'",
        "https://xn--mnchen-3ya.example/@zoe",
        "https://192.0.2.7/x",
        "https://c.example/" + "x" * 1982,
    ],
)
def test_urls(url):
    assert sent(UPDATE | {"tracking_url": url})[0].tracking_url == url


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://sendungen.münchen.example/1", "https://sendungen.xn--mnchen-3ya.example/1"),
        ("https://MÜNCHEN.example:8443", "https://xn--mnchen-3ya.example:8443"),
        ("https://c.example/ä?x=%20é#ü", "https://c.example/%C3%A4?x=%20%C3%A9#%C3%BC"),
    ],
)
def test_a_unicode_url_is_encoded_as_browsers_do(written, url):
    assert sent(UPDATE | {"tracking_url": written})[0].tracking_url == url


@pytest.mark.parametrize(
    "url",
    [
        "carrier.example/1",
        "//carrier.example/1",
        "/1",
        "http://carrier.example/1",
        "javascript:alert(1)",
        "data:text/html,x",
        "https:carrier.example",
        "https:///1",
        "https://",
        "https://zoe@carrier.example/",
        "https://zoe:secret@carrier.example/",
        "https://carrier.example@evil.example/",
        "https://carrier.example\\@evil.example/",
        "https://carrier.example/ 1",
        "https://carrier.example/\n1",
        "https://carrier.example/\u202e1",
        'https://carrier.example/"><script>',
        "https://zoë@carrier.example/",
        "https://münchen\u202e.example/",
        "https://ä..example/",
        "https://-carrier.example/",
        "https://carrier.example/\x00",
        "https://c.example/" + "x" * 1983,
        5,
    ],
)
def test_unsafe_urls_are_refused(url):
    with pytest.raises(BodyError, match=r"\$\.tracking_url must be an absolute URL") as refused:
        sent(UPDATE | {"tracking_url": url})
    assert len(refused.value.faults) == 1


@pytest.mark.parametrize(
    "written",
    ["2026-12-03", " 2026-12-03 ", "2026-12-03T23:30:00-05:00", "2026-12-03t00:00:00.5Z"],
)
def test_a_day(written):
    event, message = sent(UPDATE | {"estimated_delivery": written})
    assert event.estimated_delivery.isoformat() == "2026-12-03"
    assert b'"estimated_delivery":"2026-12-03"' in message.body


@pytest.mark.parametrize(
    "written", ["soon", "03.12.2026", "2026-13-03", "2026-02-30T10:00:00Z", 1764720000, "2026-12"]
)
def test_invalid_days_are_refused(written):
    with pytest.raises(BodyError, match=r"\$\.estimated_delivery must be a day, such as"):
        sent(UPDATE | {"estimated_delivery": written})


@pytest.mark.parametrize("field", ["carrier", "tracking_number"])
@pytest.mark.parametrize("value", ["x" * 101, "a\nb", 1.5, {}])
def test_invalid_lines_are_refused(field, value):
    with pytest.raises(BodyError, match=rf"\$\.{field} must be a text of 1 to 100 characters"):
        sent(UPDATE | {field: value})


def test_missing_fields_are_not_encoded():
    _, message = sent(UPDATE | {"carrier": None, "tracking_url": None})
    assert b"carrier" not in message.body
    assert b"tracking_url" not in message.body


@pytest.mark.parametrize("body", [ORDER, UPDATE])
@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_text_counts_as_missing(body, empty):
    """PHP, forms and spreadsheets write it instead of null."""
    names = ("carrier", "tracking_number", "tracking_url", "estimated_delivery")
    _, message = sent(body | dict.fromkeys(names, empty))
    assert not any(name.encode() in message.body for name in names)


@pytest.mark.parametrize("body", [ORDER, UPDATE])
def test_an_update_without_its_number_creates_no_order(body):
    with pytest.raises(BodyError, match="order_number must be a text of 1 to 100 characters"):
        sent(body | {"order_number": ""})


def test_a_member_of_the_metadata_may_be_null():
    event, _ = sent(ORDER | {"metadata": {"branch": "Lekki", "till": None}})
    assert event.metadata == {"branch": "Lekki"}
