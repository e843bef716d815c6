"""Templates, and how times and numbers are written in them."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from services.ops.console.web.masking import Given, mask

UNKNOWN = "\N{EN DASH}"
STATIC = Path(__file__).parents[1] / "static"


@pass_context
def _finalize(context: Context, value: object) -> object:
    """Whatever a template prints."""
    return mask(value, "") if context["masks"] else value


@pass_context
def personal(context: Context, value: object, part: str | None = None) -> object:
    """All of which is of a person, or a part."""
    return mask(value, part) if context["masks"] else value


_environment = Environment(
    loader=PackageLoader("services.ops.console"),
    autoescape=True,
    finalize=_finalize,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, about: dict[str, Any], *, masks: bool = True) -> str:
    """A page, or a piece of one.

    Args:
        template: its name.
        about: its variables.
        masks: whether personal data in it is masked.
    """
    return _environment.get_template(template).render(about, now=datetime.now(UTC), masks=masks)


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the file, so that browsers may keep it."""
    mark = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{mark}"


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


def time(value: datetime | None) -> str:
    """A time, with its age where that is easier to read; machines read the attribute."""
    if value is None:
        return UNKNOWN
    value = value.astimezone(UTC)
    shown = value.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        value.isoformat(timespec="milliseconds"), value.isoformat(timespec="milliseconds"), shown
    )


def age(value: datetime | None, now: datetime) -> str:
    """How long ago, in words."""
    return UNKNOWN if value is None else duration(max(0, round((now - value).total_seconds())))


def sparkline(values: list[float | None], width: int = 120, height: int = 24) -> Markup:
    """A line of the last hour as a small picture; the highest value reaches the top."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup('<svg class="spark" width="{}" height="{}" aria-hidden="true"></svg>').format(
            width, height
        )
    top = max(1.0, *known)
    step = width / (len(values) - 1)
    points = " ".join(
        f"{index * step:.1f},{height - 1 - value / top * (height - 3):.1f}"
        for index, value in enumerate(values)
        if value is not None
    )
    return Markup(
        '<svg class="spark" width="{0}" height="{1}" viewBox="0 0 {0} {1}" aria-hidden="true">'
        '<polyline points="{2}"/></svg>'
    ).format(width, height, points)


_environment.globals["asset"] = asset
_environment.filters |= {
    "duration": duration,
    "number": number,
    "rate": rate,
    "time": time,
    "age": age,
    "sparkline": sparkline,
    "personal": personal,
    "given": Given,
}
