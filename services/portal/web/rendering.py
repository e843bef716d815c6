"""Templates and filters of the portal."""

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
    """Render a template.

    Args:
        template: the name.
        about: the variables.
    """
    return _environment.get_template(template).render(about, now=datetime.now(UTC))


def _moment(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None


def time(stamp: str | None, zone: ZoneInfo | None = None) -> str:
    """Render a time of the API (RFC 3339); without a zone in the browser's."""
    return rendering.time(_moment(stamp), zone)


def age(stamp: str | None, now: datetime) -> str:
    """Return the age of a time of the API, such as `3 h 20 min`."""
    return rendering.age(_moment(stamp), now)


def status(value: str) -> str:
    """Return a status of the API in lower case, with spaces."""
    return value.replace("_", " ").lower()


def moment(stamp: str, say: Language, zone: ZoneInfo) -> str:
    """Return a time of the API in a language and a time zone."""
    return say.moment(datetime.fromisoformat(stamp), zone)


def day(value: str, say: Language) -> str:
    """Return a date of the API in a language."""
    return say.day(date.fromisoformat(value))


_environment.filters |= {"time": time, "age": age, "status": status, "moment": moment, "day": day}
