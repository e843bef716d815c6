"""One language: its words, and how it writes a day and a time.

A language is the folder of its name (ISO 639-1) beside this file, with the files of `en`, key for
key: a test holds each to English. Dates are the CLDR's (Unicode TR 35), through Babel.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date

FOLDER = Path(__file__).parent
DEFAULT = "en"
CODES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/common.toml")))
"""Every language there is."""


class Language:
    """The words of one language.

    Attributes:
        code: its name, ISO 639-1.
        texts: every text, by the name of its file and its keys, joined by dots.
    """

    def __init__(self, code: str, texts: Mapping[str, str]) -> None:
        self.code = code
        self.texts = texts
        self._locale = Locale.parse(code)
        self._days = lru_cache(maxsize=1_024)(self._written)

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self.texts["common.name"]

    def __call__(self, key: str, **values: object) -> str:
        """A text with its places filled in.

        Args:
            key: its key.
            values: what stands in `{}` there, by name; it is put in as it is.

        Raises:
            KeyError: there is no such text, or a value is missing.
        """
        return self.texts[key].format_map(values)

    def day(self, value: date) -> str:
        """A day, such as `3 December 2026`."""
        return self._days(value)

    def moment(self, value: datetime, zone: ZoneInfo) -> str:
        """A time where somebody is, with how far that is from UTC: `UTC`, `UTC+1`, `UTC+5:45`."""
        at = value.astimezone(zone)
        return self(
            "common.moment", day=self._days(at.date()), time=f"{at:%H:%M}", zone=_distance(at)
        )

    def status(self, value: str) -> str:
        """A tracking status in words, as it stands inside a sentence.

        Args:
            value: as the API has it; orders of old have spaces.
        """
        return self.texts.get(f"common.status.{value.replace(' ', '_')}") or (
            value.replace("_", " ").lower()
        )

    def share(self, value: float) -> str:
        """A part of the whole (0 to 1), never rounded down to nothing."""
        if value < 0.01:
            return self("common.share_tiny")
        return self("common.share", percent=f"{value * 100:.0f}")

    def _written(self, value: date) -> str:
        return format_date(value, self.texts["common.day"], locale=self._locale)


@cache
def language(code: str) -> Language:
    """A language, read once; English where there is none of this name (any more).

    Args:
        code: ISO 639-1; empty: English.
    """
    return Language(code, _read(code)) if code in CODES else language(DEFAULT)


def capitalised(text: str) -> str:
    """The beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _read(code: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted((FOLDER / code).glob("*.toml")):
        texts |= _flat(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    return texts


def _flat(prefix: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        if isinstance(value, str):
            yield f"{prefix}.{key}", value
        else:
            yield from _flat(f"{prefix}.{key}", value)


def _distance(at: datetime) -> str:
    distance = at.utcoffset() or timedelta()
    if not distance:
        return "UTC"
    minutes = round(abs(distance).total_seconds() / 60)
    sign = "+" if distance > timedelta() else "-"
    return f"UTC{sign}{minutes // 60}" + (f":{minutes % 60:02}" if minutes % 60 else "")
