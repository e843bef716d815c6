"""Templates, static files, and how times and numbers are written."""

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

from shared.web.forms import Typed

UNKNOWN = "\N{EN DASH}"
STATIC = Path(__file__).parent / "static"
"""What every site uses; in templates behind `web/`, such as `web/base.css`."""


def environment(
    package: str, static: Path, finalize: Callable[..., object] | None = None
) -> Environment:
    """The templates of a site: its own, and those that all have.

    Args:
        package: whose templates.
        static: its own static files.
        finalize: called with whatever a template prints (Jinja).
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("shared.web")]),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    @cache
    def asset(name: str) -> str:
        """The address of a static file; it changes with the file, so browsers may keep it."""
        path = STATIC / name.removeprefix("web/") if name.startswith("web/") else static / name
        mark = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return f"/static/{name}?{mark}"

    made.globals |= {"asset": asset, "typed": Typed({}), "refused": "", "faulty": faulty}
    made.filters |= {
        "duration": duration,
        "number": number,
        "rate": rate,
        "time": time,
        "age": age,
        "with_code": with_code,
        # What a form gives back as it was; a site that masks what it prints says how.
        "given": str,
    }
    return made


def add_static(app: falcon.asgi.App[Any, Any], static: Path) -> None:
    """Serve the static files of a site, and those that all have."""
    app.add_static_route("/static", static)
    app.add_static_route("/static/web", STATIC)  # the later one is asked first


def faulty(wrong: object, described_by: str = "") -> Markup:
    """The attributes of a field of a form, which what is wrong with it is bound to.

    Args:
        wrong: what is wrong; where nothing is, so is the field.
        described_by: the id of what describes the field in any case.
    """
    ids = " ".join(filter(None, ("wrong" if wrong else "", described_by)))
    described = Markup(' aria-describedby="{}"').format(ids) if ids else Markup("")
    return described + (Markup(' aria-invalid="true"') if wrong else "")


def duration(seconds: float | None) -> str:
    """A length of time, to two places: `4 s`, `12 min`, `3 h 20 min`, `5 d 2 h`."""
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
    """A count, with thin spaces between thousands; a dash when nobody knows it."""
    if value is None:
        return UNKNOWN
    return f"{round(value):,}".replace(",", "\N{THIN SPACE}")


def rate(value: float | None) -> str:
    """So many a second."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < value < 100 else number(value)


def time(value: datetime | None, zone: tzinfo | None = None) -> str:
    """A time; machines read the attribute, and the title has it in UTC.

    Args:
        value: the time.
        zone: where it is told. Without one a script tells it where the browser is (forms.js), and
            UTC is said where there are no scripts.
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
    """How long ago, in words."""
    return UNKNOWN if value is None else duration(max(0, round((now - value).total_seconds())))


def with_code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
