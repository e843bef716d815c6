"""The first page: what is wrong, in words; then the figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from services.ops.console.page import Page, Result, View, Visit
from services.ops.console.rendering import render
from services.ops.console.sample import Sample
from services.ops.console.sampler import Sampler
from shared.bus import topology

POINTS = 60
"""So many points has the line of an hour: one a minute."""
RATE_OVER = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One queue, as the table shows it."""

    name: str
    ready: int | None
    consumers: int | None
    retry: int | None
    dead: int | None
    hour: list[float | None]


def show(_: Session, visit: Visit) -> Result:
    """The page; it goes on by itself over `/live/overview`."""
    return View("overview.html", {"path": "/", "inside": inside(visit.system.sampler)})


def inside(sampler: Sampler) -> str:
    """What changes with every sample."""
    sample = sampler.latest
    if sample is None:
        return render("overview_live.html", {"sample": None})
    hour = list(sampler.hour)
    return render(
        "overview_live.html",
        {
            "sample": sample,
            "troubles": troubles(sample),
            "rows": [_row(sample, hour, queue.name) for queue in topology.WORK_QUEUES],
            "minutes": json.dumps(_minutes(hour)),
        },
    )


def troubles(sample: Sample) -> list[str]:
    """What is wrong, in words, the worst first."""
    found = []
    for server in (sample.broker, sample.database):
        if not server.is_well:
            found.append(f"The {server.name} does not answer ({server.detail}).")
    return found


def _row(sample: Sample, hour: Sequence[Sample], name: str) -> Row:
    now = {depth.name: depth for depth in sample.queues}
    found = now.get(name)
    return Row(
        name,
        found.messages if found else None,
        found.consumers if found else None,
        None,
        found.dead if found else None,
        _hour_of(hour, sample.at, name),
    )


def _hour_of(hour: Sequence[Sample], now: datetime, name: str) -> list[float | None]:
    """The highest depth of each minute, the newest last."""
    points: list[float | None] = [None] * POINTS
    for sample in hour:
        minute = int((now - sample.at).total_seconds() // 60)
        if 0 <= minute < POINTS:
            for depth in sample.queues:
                if depth.name == name and depth.messages is not None:
                    place = POINTS - 1 - minute
                    points[place] = max(points[place] or 0, depth.messages)
    return points


def _minutes(hour: Sequence[Sample]) -> dict[str, Any]:
    return {}


PAGES = (Page("GET", "/", "watch", show),)
