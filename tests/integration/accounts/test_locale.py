"""A business chooses the language and the time zone of its emails, and looks at them."""

from collections import Counter

import pytest

from shared.bus.contract.events import EmailLocaleChanged, decode
from shared.db.models import OutboxMessage
from shared.languages.language import CODES
from tests.integration.accounts.test_accounts import bearer, login
from tests.integration.accounts.test_credentials import email

__all__ = ["email"]
PATH = "/users/locale/"


@pytest.fixture
def headers(api, email):
    return bearer(login(api, email).json()["access"])


def put(api, headers, **body):
    return api.http.put(PATH, json=body, headers=headers)


def shown(api, headers):
    return api.http.get(PATH, headers=headers).json()


def test_without_a_word_it_is_english_and_utc(api, headers):
    assert shown(api, headers) == {
        "language": "en", "time_zone": "UTC", "languages": list(CODES),
    }  # fmt: skip
    assert api.http.get(PATH).status_code == 401


def test_what_is_chosen_holds_and_changes_nothing_else(api, headers):
    sender = {"display_name": "Kettle"}
    api.http.put("/email-sender/", json=sender, headers=headers)
    for _ in range(2):
        answer = put(api, headers, language="fr", time_zone="Africa/Lagos")
        assert answer.status_code == 200
        assert answer.json() == shown(api, headers)
    assert (answer.json()["language"], answer.json()["time_zone"]) == ("fr", "Africa/Lagos")
    assert api.http.get("/email-sender/", headers=headers).json()["display_name"] == "Kettle"
    api.http.put("/email-sender/", json={}, headers=headers)
    assert shown(api, headers)["language"] == "fr"
    assert put(api, headers).json()["language"] == "en"


def test_what_customers_notice_is_told_to_the_audit_log_once(api, headers, email):
    for _ in range(2):
        assert put(api, headers, language="fr", time_zone="Africa/Lagos").status_code == 200
    with api.session() as session:
        rows = session.query(OutboxMessage).filter_by(type=EmailLocaleChanged.TYPE)
        facts = [decode(row.type, row.body) for row in rows]
    (fact,) = [fact for fact in facts if fact.email == email]
    assert (fact.language, fact.time_zone, bool(fact.address)) == ("fr", "Africa/Lagos", True)


@pytest.mark.parametrize("language", ["xx", "EN", "../en", ""])
def test_an_unknown_language_is_refused_and_the_known_are_named(api, headers, language):
    answer = put(api, headers, language=language)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_language")
    assert all(code in answer.json()["error"] for code in CODES)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "utc+1", "", "africa/lagos"])
def test_an_unknown_time_zone_is_refused(api, headers, zone):
    answer = put(api, headers, time_zone=zone)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_time_zone")
    assert shown(api, headers)["time_zone"] == "UTC"


def test_every_email_of_customers_can_be_looked_at(api, headers):
    put(api, headers, language="fr")
    listed = api.http.get("/email-previews/", headers=headers).json()
    assert listed["language"] == "fr"
    whose = Counter(one["to"] for one in listed["results"])
    assert whose["customer"] == 5
    assert whose["business"] > 20
    for one in listed["results"]:
        if one["to"] == "business":
            continue
        path = f"/email-previews/{one['name']}/"
        french = api.http.get(path, headers=headers).json()
        english = api.http.get(path, params={"language": "en"}, headers=headers).json()
        assert (french["language"], french["subject"]) == ("fr", one["subject"])
        assert "Bonjour" in french["text"]
        assert "Dear" in english["text"]
        assert english["html"].startswith("<!doctype html>")


def test_every_email_to_the_business_can_be_looked_at(api, headers):
    put(api, headers, language="fr")
    listed = api.http.get("/email-previews/", headers=headers).json()["results"]
    assert listed
    for one in listed:
        path = f"/email-previews/{one['name']}/"
        french = api.http.get(path, headers=headers).json()
        english = api.http.get(path, params={"language": "en"}, headers=headers).json()
        assert (french["language"], french["subject"]) == ("fr", one["subject"])
        assert english["text"] != french["text"]


def test_what_is_no_email_is_not_shown(api, headers):
    answer = api.http.get("/email-previews/nothing/", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "preview_not_found")
    answer = api.http.get("/email-previews/", params={"language": "xx"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_language")
    assert api.http.get("/email-previews/").status_code == 401
