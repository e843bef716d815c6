"""Every language has the texts and placeholders of English."""

import string
from datetime import UTC, date, datetime

import pytest

from shared.bus.contract.events import TrackingStatus
from shared.languages import time_zones
from shared.languages.language import CODES, DEFAULT, FOLDER, language

OTHERS = [code for code in CODES if code != DEFAULT]
AT = datetime(2099, 3, 1, 23, 5, tzinfo=UTC)


def places(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def test_the_languages_are_english_and_french():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(CODES)
    assert {"en", "fr"} <= folders


@pytest.mark.parametrize("code", OTHERS)
def test_a_language_has_the_texts_and_placeholders_of_english(code):
    english, other = language(DEFAULT).texts, language(code).texts
    assert other.keys() == english.keys()
    assert [key for key in english if places(english[key]) != places(other[key])] == []
    assert [key for key, text in other.items() if not text.strip()] == []


@pytest.mark.parametrize("code", OTHERS)
def test_no_text_of_several_words_is_left_in_english(code):
    english, other = language(DEFAULT).texts, language(code).texts
    forms = {"common.day", "common.moment"}
    left = [key for key in english if english[key] == other[key] and " " in english[key]]
    assert set(left) <= forms


@pytest.mark.parametrize("code", CODES)
def test_every_status_has_a_label(code):
    say = language(code)
    assert all(f"common.status.{status}" in say.texts for status in TrackingStatus)
    assert say.status("IN TRANSIT") == say.status("IN_TRANSIT")
    assert say.status("AT_THE_DOOR") == "at the door"


def test_an_unknown_language_is_english_and_an_unknown_zone_utc():
    for name in ("", "xx", "../en", "en/../fr"):
        assert language(name).code == DEFAULT
        assert time_zones.zone(name).key == "UTC"
    assert language("fr").name == "Français"


@pytest.mark.parametrize(
    ("code", "zone", "written"),
    [
        ("en", "", "1 March 2099, 23:05 UTC"),
        ("en", "Africa/Lagos", "2 March 2099, 00:05 UTC+1"),
        ("fr", "Europe/Paris", "2 mars 2099 à 00:05 UTC+1"),
        ("fr", "Asia/Kathmandu", "2 mars 2099 à 04:50 UTC+5:45"),
        ("en", "America/St_Johns", "1 March 2099, 19:35 UTC-3:30"),
    ],
)
def test_a_time_is_formatted_in_its_zone(code, zone, written):
    assert language(code).moment(AT, time_zones.zone(zone)) == written


def test_a_day_has_no_zone():
    assert language("en").day(date(2026, 12, 3)) == "3 December 2026"
    assert language("fr").day(date(2026, 12, 3)) == "3 décembre 2026"


def test_inserted_values_are_not_formatted():
    say = language("en")
    assert say("orders.dear", name="{company} {0!r}") == "Dear {company} {0!r},"
