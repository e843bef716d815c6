"""Translated texts of a language, and its formats of days and times.

A language is the folder of its code (ISO 639-1) beside this file, with the same files and keys as
`en`, which a test compares. Dates follow the CLDR (Unicode TR 35), through Babel.
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
"""Codes of all languages."""


class Language:
    """The texts and formats of one language.

    Attributes:
        code: ISO 639-1.
        texts: all texts by the name of their file and their keys, joined by dots.
    """

    def __init__(self, code: str, texts: Mapping[str, str]) -> None:
        self.code = code
        self.texts = texts
        self._locale = Locale.parse(code)
        self._days = lru_cache(maxsize=1_024)(self._format_day)

    @property
    def name(self) -> str:
        """The language's own name."""
        return self.texts["common.name"]

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its placeholders filled in.

        Args:
            key: of the text.
            values: of the placeholders by name; inserted unmodified.

        Raises:
            KeyError: there is no such text, or a value is missing.
        """
        return self.texts[key].format_map(values)

    def day(self, value: date) -> str:
        """Format a day, such as `3 December 2026`."""
        return self._days(value)

    def moment(self, value: datetime, zone: ZoneInfo) -> str:
        """Format a time in a zone, with its offset: `UTC`, `UTC+1`, `UTC+5:45`."""
        at = value.astimezone(zone)
        return self(
            "common.moment", day=self._days(at.date()), time=f"{at:%H:%M}", zone=_offset(at)
        )

    def status(self, value: str) -> str:
        """Return the label of a tracking status, in the form for use inside a sentence.

        Args:
            value: of the API; old orders have spaces in it.
        """
        return self.texts.get(f"common.status.{value.replace(' ', '_')}") or (
            value.replace("_", " ").lower()
        )

    def share(self, value: float) -> str:
        """Format a share (0 to 1) in percent; small ones are not rounded to 0."""
        if value < 0.01:
            return self("common.share_tiny")
        return self("common.share", percent=f"{value * 100:.0f}")

    def _format_day(self, value: date) -> str:
        return format_date(value, self.texts["common.day"], locale=self._locale)


@cache
def language(code: str) -> Language:
    """Return a language, loaded once; English if the code is unknown.

    Args:
        code: ISO 639-1; empty: English.
    """
    return Language(code, _read(code)) if code in CODES else language(DEFAULT)


def capitalised(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _read(code: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted((FOLDER / code).glob("*.toml")):
        texts |= _flat(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    return texts


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, str):
            yield f"{prefix}.{key}", value
        else:
            yield from _flat(f"{prefix}.{key}", value)


def _offset(at: datetime) -> str:
    offset = at.utcoffset() or timedelta()
    if not offset:
        return "UTC"
    minutes = round(abs(offset).total_seconds() / 60)
    sign = "+" if offset > timedelta() else "-"
    return f"UTC{sign}{minutes // 60}" + (f":{minutes % 60:02}" if minutes % 60 else "")
