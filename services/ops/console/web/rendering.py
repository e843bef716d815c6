"""Renders the console's templates, with personal data masked."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from services.ops.console.web.masking import Given, mask
from shared.web.rendering import environment

STATIC = Path(__file__).parents[1] / "static"


@pass_context
def _finalize(context: Context, value: object) -> object:
    """Mask email addresses in every printed value."""
    return mask(value, "") if context["masks"] else value


@pass_context
def personal(context: Context, value: object, part: str | None = None) -> object:
    """Mask a personal value, or `part` of it."""
    return mask(value, part) if context["masks"] else value


_environment = environment("services.ops.console", STATIC, _finalize)
_environment.globals["pages"] = (
    ("/", "Overview"),
    ("/kyc", "KYC"),
    ("/dead", "Dead letters"),
    ("/outbox", "Outbox"),
    ("/emails", "Emails"),
    ("/audit", "Audit log"),
)


def render(template: str, about: dict[str, Any], *, masks: bool = True) -> str:
    """Render a page or a fragment.

    Args:
        template: its name.
        about: its variables.
        masks: whether personal data in it is masked.
    """
    return _environment.get_template(template).render(about, now=datetime.now(UTC), masks=masks)


def sparkline(values: list[float | None], width: int = 120, height: int = 24) -> Markup:
    """Return the last hour as a small SVG line, scaled to its highest value."""
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


_environment.filters |= {"sparkline": sparkline, "personal": personal, "given": Given}
