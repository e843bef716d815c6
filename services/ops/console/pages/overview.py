"""The first page: what is wrong, in words; then the figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from services.ops.console.pages.runbook import section
from services.ops.console.web.page import Page, System, Visit
from services.ops.console.web.rendering import render
from services.ops.monitoring import history
from services.ops.monitoring.alerts import PROOF, PROOF_IS_OFF
from services.ops.monitoring.heartbeats import FRESH
from services.ops.monitoring.poller import Lookout
from services.ops.monitoring.queue_stats import Figures
from services.ops.monitoring.snapshot import Look
from shared.bus.contract import topology
from shared.bus.outbox import COUNTED
from shared.web.mount import Result
from shared.web.rendering import UNKNOWN, duration, number
from shared.web.results import View

NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, large.

    Attributes:
        title: what it is.
        figure: how much.
        unit: of what.
        more: a line below.
        is_well: whether that is as it should be; None where nobody can say.
    """

    title: str
    figure: str
    unit: str = ""
    more: str = ""
    is_well: bool | None = None


def show(_: Session, visit: Visit) -> Result:
    """The page; it goes on by itself over `/live/overview`."""
    return page(visit.system)


def page(system: System) -> View:
    """The same, without the database: what is away is the first that it says."""
    system.lookout.hasten()
    look = system.lookout.latest
    wrong = len(look.troubles) if look else 0
    return View("overview.html", {"path": "/", "inside": inside(system.lookout), "count": wrong})


def inside(lookout: Lookout) -> str:
    """What changes with every look."""
    look = lookout.latest
    if look is None:
        return render("overview_live.html", {"look": None})
    looks = list(lookout.hour)
    if not looks or looks[-1] is not look:
        looks.append(look)
    wrong = {trouble.about for trouble in look.troubles}
    return render(
        "overview_live.html",
        {
            "look": look,
            "tiles": tiles(look, looks),
            "chart": _chart(looks),
            "queues": [
                (_of(look, queue.name), history.depths(looks, look.at, queue.name))
                for queue in topology.WORK_QUEUES
            ],
            "ladder": [_of(look, rung.name) for rung in topology.RETRY_LADDER],
            "journal": _of(look, topology.JOURNAL.name),
            "wrong": wrong,
            "is_old": any(trouble.kind == "blind" for trouble in look.troubles),
            "section": section,
            "fresh": FRESH,
        },
    )


def tiles(look: Look, looks: Sequence[Look]) -> list[Tile]:
    """The figures above the queues."""
    a_minute = [
        _a_minute(title, history.per_minute(looks, look.at, count), more)
        for title, count, more in (
            ("Accepted", history.accepted, "orders and their updates"),
            ("Recorded", history.recorded, "in the books"),
            ("Emailed", history.emailed, "sent, or refused for good"),
        )
    ]
    return [
        *a_minute,
        _latency(look),
        *_proof(look),
        _outbox(look),
        _broker(look),
        _database(look),
    ]


def _a_minute(title: str, found: float | None, more: str) -> Tile:
    return (
        Tile(title, UNKNOWN, "", NOT_KNOWN)
        if found is None
        else Tile(title, number(found), "/min", more)
    )


def _latency(look: Look) -> Tile:
    if look.books is None:
        return Tile("Order to email", UNKNOWN, "", NOT_KNOWN)
    if not look.books.latency.orders:
        return Tile("Order to email", UNKNOWN, "", "no order in the last day")
    found = look.books.latency
    return Tile(
        "Order to email",
        duration(found.emailed_p50),
        "p50",
        f"p99 {duration(found.emailed_p99)}; to the books {duration(found.recorded_p50)}, "
        f"p99 {duration(found.recorded_p99)}",
    )


def _proof(look: Look) -> list[Tile]:
    """How long ago an order last went the whole way, by the scheme that is worst off."""
    beats = [beat for beat in look.sample.beats or () if beat.service == PROOF]
    newest = max(beats, key=lambda beat: beat.seen_at, default=None)
    if newest is None or look.at - newest.seen_at > PROOF_IS_OFF:
        return []
    times = [said.reached for said in newest.queues.values()]
    is_well = look.at - newest.seen_at <= FRESH and all(
        said.state == "proved" for said in newest.queues.values()
    )
    if not times or None in times:
        return [Tile("Standing proof", UNKNOWN, "", "not proved yet", is_well=is_well)]
    oldest = min(time for time in times if time is not None)
    age = duration(max(0, round((look.at - oldest).total_seconds())))
    more = "an order, from the request to its email" if is_well else "not proved since"
    return [Tile("Standing proof", age, "ago", more, is_well=is_well)]


def _outbox(look: Look) -> Tile:
    if look.sample.outbox is None:
        return Tile("Outbox", UNKNOWN, "", NOT_KNOWN)
    since, parked = look.sample.outbox_since, look.sample.parked
    more = (
        "nothing waits"
        if since is None
        else f"the oldest for {duration((look.at - since).total_seconds())}"
    )
    if parked:
        more += f"; {_counted(parked)} parked"
    return Tile("Outbox", _counted(look.sample.outbox), "", more)


def _counted(rows: int) -> str:
    return number(rows) if rows <= COUNTED else f"over {number(COUNTED)}"


def _broker(look: Look) -> Tile:
    sample = look.sample
    if sample.broker_error is not None:
        return Tile("Broker", "away", "", "does not answer", is_well=False)
    if sample.alarm is not None:
        return Tile("Broker", "blocked", "", sample.alarm, is_well=False)
    consumers = sum(count.consumers for count in sample.counts.values())
    return Tile("Broker", "up", "", f"{consumers} consumers", is_well=True)


def _database(look: Look) -> Tile:
    books = look.books
    if look.sample.is_read_only:
        return Tile("Database", "read-only", "", "takes no writes", is_well=False)
    if look.sample.database_error is not None or books is None:
        return Tile("Database", "away", "", "does not answer", is_well=False)
    is_well = books.database.connections < 0.9 * books.database.most_connections
    return Tile(
        "Database",
        "up",
        f"in {duration(books.seconds)}",
        f"{books.database.connections} of {books.database.most_connections} connections, "
        f"{books.database.bytes / 1e6:,.0f} MB",
        is_well=is_well,
    )


def _chart(looks: Sequence[Look]) -> str:
    found: Any = history.flow(looks, looks[-1].at)
    return json.dumps([found.at, found.accepted, found.recorded, found.emailed])


def _of(look: Look, queue: str) -> Figures:
    return look.figures.get(queue, Figures(queue, None))


PAGES = (Page("GET", "/", "watch", show, without_database=page),)
