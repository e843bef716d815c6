"""The portal's templates."""

from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from shared.languages.language import Language
from shared.languages.time_zones import UTC
from shared.web import rendering

STATIC = Path(__file__).parents[1] / "static"
_environment = rendering.environment("services.portal", STATIC)
_environment.globals["pages"] = (
    ("/", "Overview"),
    ("/kyc", "KYC"),
    ("/secret", "Secret"),
    ("/requests", "Requests"),
    ("/orders", "Orders"),
    ("/upload", "Upload"),
    ("/activity", "Activity"),
    ("/settings", "Settings"),
    ("/account", "Account"),
)


def render(template: str, about: dict[str, Any]) -> str:
    """A page, or a piece of one.

    Args:
        template: its name.
        about: its variables.
    """
    return _environment.get_template(template).render(about, now=datetime.now(UTC))


def _moment(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None


def time(stamp: str | None, zone: ZoneInfo | None = None) -> str:
    """A time of the API (RFC 3339), for people, where they are, and for machines."""
    return rendering.time(_moment(stamp), zone)


def age(stamp: str | None, now: datetime) -> str:
    """How long ago a time of the API is, in words."""
    return rendering.age(_moment(stamp), now)


def status(value: str) -> str:
    """A tracking status, or another word of the API, for people."""
    return value.replace("_", " ").lower()


def moment(stamp: str, say: Language, zone: ZoneInfo) -> str:
    """A time of the API, as a language writes it, where somebody is."""
    return say.moment(datetime.fromisoformat(stamp), zone)


def day(value: str, say: Language) -> str:
    """A day of the API, as a language writes it."""
    return say.day(date.fromisoformat(value))


_environment.filters |= {"time": time, "age": age, "status": status, "moment": moment, "day": day}
