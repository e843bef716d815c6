"""What the portal's pages make of what the API says, and of what is typed in."""

from datetime import UTC, datetime
from fnmatch import fnmatch

import pytest

from services.portal.app import PAGES
from services.portal.pages.first_request import EXAMPLES, LANGUAGES, snippets
from services.portal.pages.orders import timeline
from services.portal.pages.overview import Step, in_order
from services.portal.pages.requests import first_moment, older
from services.portal.pages.signature import read_headers
from services.portal.web import rendering
from services.portal.web.api import Refused

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "headers", "strange"),
    [
        ("X-API-Key: whsk_1\nX-Webhook-Signature:ab", 2, ""),
        ("  -H 'X-API-Key: whsk_1' \\\n\n-H \"X-Webhook-Signature: ab\"", 2, ""),
        ("webhook-signature: v1,a:b", 1, ""),
        ("no header", 0, "no header"),
        (": value", 0, ": value"),
        ("", 0, ""),
    ],
)
def test_headers_are_read_as_they_are_copied(text, headers, strange):
    found, wrong = read_headers(text)
    assert (len(found), wrong) == (headers, strange)
    assert found.get("X-API-Key", "whsk_1") == "whsk_1"
    assert found.get("webhook-signature", "v1,a:b") == "v1,a:b"


@pytest.mark.parametrize(
    ("day", "days", "moment"),
    [
        ("2026-11-24", 0, "2026-11-24T00:00:00Z"),
        ("2026-12-31", 1, "2027-01-01T00:00:00Z"),
        ("9999-12-31", 1, ""),
        ("yesterday", 0, ""),
        ("", 1, ""),
    ],
)
def test_a_day_of_a_form_is_a_moment_of_the_api(day, days, moment):
    assert first_moment(day, days) == moment


def test_the_next_page_keeps_the_filters():
    assert older({"code": "a b", "outcome": ""}, "x=") == "code=a+b&cursor=x%3D"
    assert older({"code": "a b"}, None) == ""


@pytest.mark.parametrize(("done", "next_one"), [((), 0), ((0,), 1), ((0, 2), 1), ((0, 1, 2), None)])
def test_the_next_step_is_the_first_that_is_not_done(done, next_one):
    steps = in_order(Step(str(place), place in done) for place in range(3))
    marked = [place for place, step in enumerate(steps) if step.is_next]
    assert marked == ([] if next_one is None else [next_one])


def test_what_happened_to_an_order_is_in_the_order_of_time():
    order = {
        "created_at": "2026-11-24T12:00:00Z",
        "recorded_at": "2026-11-24T12:00:00.010000Z",
        "status_history": [
            {"at": "2026-11-24T12:00:02Z", "tracking_status": "B", "note": "", "applied": True},
            {"at": "2026-11-24T12:00:01Z", "tracking_status": "A", "note": "n", "applied": False},
        ],
        "emails": [
            {
                "at": "2026-11-24T12:00:00.500000Z",
                "recipient": "zoe@shop.example",
                "state": "undeliverable",
                "template": "order_received",
            }
        ],
    }
    told = timeline(order)
    assert [entry["what"] for entry in told] == [
        "Accepted",
        "Recorded",
        "Email to zoe@shop.example: undeliverable",
        "A",
        "B",
    ]
    assert [entry["counts"] for entry in told] == [True, True, False, False, True]


def test_the_snippets_are_the_examples_for_this_api():
    found = snippets("https://api.shop.example")
    assert set(found) == set(LANGUAGES)
    for text in found.values():
        assert "https://api.shop.example" in text
        assert "127.0.0.1" not in text


def test_the_image_has_every_example():
    lines = (EXAMPLES.parent / ".dockerignore").read_text().split()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[0] == "*"
    for file in LANGUAGES.values():
        assert any(fnmatch(f"examples/{file}", pattern) for pattern in kept), file


def test_times_of_the_api_are_for_people():
    assert "2026-11-24 11:00:00" in rendering.time("2026-11-24T12:00:00+01:00")
    assert rendering.time(None) == "–"
    assert rendering.age("2026-11-24T11:58:00Z", NOW) == "2 min"


def test_a_refusal_says_what_is_wrong_one_by_one():
    body = {"error": "It is invalid.", "code": "invalid_body", "faults": ["This.", "That."]}
    assert str(Refused(400, body)) == "This. That."
    assert str(Refused(403, {"error": "No.", "code": "no"})) == "No."
    assert str(Refused(502, {})) == "Bad Gateway"


def test_every_path_is_there_once():
    places = [(page.method, page.path) for page in PAGES]
    assert len(places) == len(set(places))
