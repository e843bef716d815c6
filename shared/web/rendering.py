"""Jinja environments, static files, and filters for times and numbers."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import falcon.asgi
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from shared.languages import time_zones
from shared.web.forms import Typed

UNKNOWN = "\N{EN DASH}"
STATIC = Path(__file__).parent / "static"
"""Static files of all sites; in templates with the prefix `web/`, such as `web/base.css`."""


def environment(
    package: str, static: Path, finalize: Callable[..., object] | None = None
) -> Environment:
    """Return the Jinja environment of a site, with its own and the shared templates.

    Args:
        package: that contains the site's templates.
        static: folder of the site's static files.
        finalize: processes each printed value (Jinja).
    """
    result = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("shared.web")]),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    @cache
    def asset(name: str) -> str:
        """Return the URL of a static file with a hash of its content, so that it can be cached."""
        path = STATIC / name.removeprefix("web/") if name.startswith("web/") else static / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return f"/static/{name}?{digest}"

    result.globals |= {"asset": asset, "typed": Typed({}), "refused": "", "faulty": faulty}
    result.filters |= {
        "duration": duration,
        "number": number,
        "rate": rate,
        "time": time,
        "age": age,
        "with_code": with_code,
        "zone": lambda name: time_zones.zone(name).key,
        # For values that a form must submit unmodified; a site that masks output overrides it.
        "given": str,
    }
    return result


def add_static(app: falcon.asgi.App[Any, Any], static: Path) -> None:
    """Serve the static files of a site, and the shared ones."""
    app.add_static_route("/static", static)
    app.add_static_route("/static/web", STATIC)  # later routes take precedence


def faulty(wrong: object, described_by: str = "") -> Markup:
    """Return the ARIA attributes that connect a form field with its error message.

    Args:
        wrong: the error; falsy if the field is valid.
        described_by: id of a permanent description of the field.
    """
    ids = " ".join(filter(None, ("wrong" if wrong else "", described_by)))
    described = Markup(' aria-describedby="{}"').format(ids) if ids else Markup("")
    return described + (Markup(' aria-invalid="true"') if wrong else "")


def duration(seconds: float | None) -> str:
    """Format seconds with at most two units: `4 s`, `12 min`, `3 h 20 min`, `5 d 2 h`."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = whole // 86_400, whole % 86_400 // 3600
    return f"{days} d {hours} h" if hours else f"{days} d"


def number(value: float | None) -> str:
    """Format a count, with thin spaces between thousands; a dash for None."""
    if value is None:
        return UNKNOWN
    return f"{round(value):,}".replace(",", "\N{THIN SPACE}")


def rate(value: float | None) -> str:
    """Format a rate, with one decimal below 100."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < value < 100 else number(value)


def time(value: datetime | None, zone: tzinfo | None = None) -> str:
    """Format a time as a `time` element with machine-readable UTC.

    Args:
        value: the time.
        zone: to show it in. Without one it is shown in UTC, which a script (forms.js) replaces by
            the browser's local time.
    """
    if value is None:
        return UNKNOWN
    shown = value.astimezone(zone or UTC).strftime("%Y-%m-%d %H:%M:%S")
    exact = value.astimezone(UTC).isoformat(timespec="milliseconds")
    if zone is not None:
        return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(exact, exact, shown)
    return Markup('<time datetime="{}" title="{} UTC" data-utc>{} UTC</time>').format(
        exact, exact, shown
    )


def age(value: datetime | None, now: datetime) -> str:
    """Format the age of a time."""
    return UNKNOWN if value is None else duration(max(0, round((now - value).total_seconds())))


def with_code(text: str) -> Markup:
    """Escape a text and mark text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
