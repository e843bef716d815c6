"""Pure functions of the portal's pages: API answers and form input."""

from datetime import UTC, datetime
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest

from services.portal.app import PAGES
from services.portal.pages import first_request
from services.portal.pages.first_request import EXAMPLES, LANGUAGES, snippets
from services.portal.pages.orders import timeline
from services.portal.pages.overview import Step, in_order
from services.portal.pages.requests import older
from services.portal.pages.settings import webhooks
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
def test_headers_are_parsed_from_copied_lines(text, headers, strange):
    found, wrong = read_headers(text)
    assert (len(found), wrong) == (headers, strange)
    assert found.get("X-API-Key", "whsk_1") == "whsk_1"
    assert found.get("webhook-signature", "v1,a:b") == "v1,a:b"


def test_the_next_page_keeps_the_filters():
    assert older({"code": "a b", "outcome": ""}, "x=") == "code=a+b&cursor=x%3D"
    assert older({"code": "a b"}, None) == ""


@pytest.mark.parametrize(("done", "next_one"), [((), 0), ((0,), 1), ((0, 2), 1), ((0, 1, 2), None)])
def test_the_next_step_is_the_first_open_one(done, next_one):
    steps = in_order(Step(str(place), place in done) for place in range(3))
    marked = [place for place, step in enumerate(steps) if step.is_next]
    assert marked == ([] if next_one is None else [next_one])


def test_the_timeline_of_an_order_is_sorted_by_time():
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


def test_times_of_the_api_are_rendered():
    assert "2026-11-24 11:00:00" in rendering.time("2026-11-24T12:00:00+01:00")
    assert rendering.time(None) == "–"
    assert rendering.age("2026-11-24T11:58:00Z", NOW) == "2 min"


def test_a_refusal_lists_its_faults():
    body = {"error": "It is invalid.", "code": "invalid_body", "faults": ["This.", "That."]}
    assert str(Refused(400, body)) == "This. That."
    assert str(Refused(403, {"error": "No.", "code": "no"})) == "No."
    assert str(Refused(502, {})) == "Bad Gateway"


def test_every_path_is_declared_once():
    places = [(page.method, page.path) for page in PAGES]
    assert len(places) == len(set(places))


class Allowlist:
    """The API's, which others change as well."""

    def __init__(self, *networks):
        self.networks = list(networks)

    def get(self, _):
        return {"allowed_networks": self.networks, "your_address": "192.0.2.1", "warning": ""}

    def put(self, path, body):
        self.networks = body["allowed_networks"]
        return self.get(path)


A, B = "192.0.2.0/24", "198.51.100.0/24"


@pytest.mark.parametrize(
    ("typed", "meanwhile"),
    [
        (A, [B]),  # it would be opened to everybody
        ("", [A, B, "203.0.113.0/24"]),  # it would be closed
        (A, [A, B, "203.0.113.0/24"]),
    ],
)
def test_only_the_confirmed_networks_are_saved(typed, meanwhile):
    api = Allowlist(A, B)
    form = {"networks": [typed], "was_networks": [f"{A} {B}"]}
    first = lambda name: form.get(name, [""])[0]  # noqa: E731
    visit = SimpleNamespace(api=api, form=form, field=first, lines=first)
    asked = webhooks.ask_allowlist(visit)
    form |= {name: [value] for name, value in asked.also.items()}
    api.networks = meanwhile
    shown = webhooks.put_allowlist(visit)
    assert (shown.status, api.networks) == (409, meanwhile)
    assert "has changed in the meantime" in shown.about["wrong"]
    asked = webhooks.ask_allowlist(visit)
    form |= {name: [value] for name, value in asked.also.items()}
    webhooks.put_allowlist(visit)
    assert "\n".join(api.networks) == asked.facts["Networks"]


OLD, ONE, TWO = (f"2026-11-24T12:00:0{second}.000000Z" for second in range(3))


@pytest.mark.parametrize("outcome", ["accepted", "refused"])
def test_the_outcome_of_the_request_before_is_shown(outcome):
    """Who pastes the lines of another page, or loads this one anew, has sent it before."""
    log = []

    def get(_, *, limit="50", outcome="", received_from=""):
        since = datetime.fromisoformat(received_from) if received_from else None
        fit = [
            one
            for one in log
            if outcome in ("", one["outcome"])
            and (since is None or datetime.fromisoformat(one["received_at"]) >= since)
        ]
        return {"results": sorted(fit, key=lambda one: one["received_at"])[: -int(limit) - 1 : -1]}

    def came(at, outcome):
        said = {"code": "invalid_body", "order_id": "", "note": None}
        log.append({"received_at": at, "outcome": outcome, **said})

    def state(after):
        visit = SimpleNamespace(api=SimpleNamespace(get=get), query={"after": after})
        about = first_request.state(visit).about
        return about, rendering.render("first_request_state.html", about)

    came(OLD, outcome)
    visit = SimpleNamespace(
        api=SimpleNamespace(get=get),
        query={},
        config=SimpleNamespace(public_url="https://a.example"),
    )
    about = first_request.show(visit).about
    assert (about["after"], about["request"], about["before"]["outcome"]) == (OLD, None, outcome)
    about, page = state(OLD)
    assert (about["request"], about["before"]["outcome"]) == (None, outcome)
    assert "Waiting for your next request" in page
    assert "every 2s" in page
    assert ("invalid_body" in page, "accepted" in page) == (
        (False, True) if outcome == "accepted" else (True, False)
    )
    assert f"/requests/{OLD.replace(':', '%3A')}" in page
    came(ONE, "accepted")
    came(TWO, "refused")
    assert state(OLD)[0]["request"]["received_at"] == ONE
    assert state(ONE)[0]["request"]["received_at"] == TWO
    assert state("")[0]["request"]["outcome"] == "accepted"
