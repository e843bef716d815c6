"""The overview: current troubles as sentences, then figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from services.ops.console.pages.runbook import section
from services.ops.console.web.page import Page, System, Visit
from services.ops.console.web.rendering import render
from services.ops.monitoring import history
from services.ops.monitoring.alerts import PROOF, PROOF_IS_OFF
from services.ops.monitoring.heartbeats import FRESH
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.monitoring.queue_stats import Figures
from services.ops.monitoring.snapshot import Snapshot
from shared.bus.contract import topology
from shared.bus.outbox import COUNTED
from shared.web.mount import Result
from shared.web.rendering import UNKNOWN, duration, number
from shared.web.results import View

NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Tile:
    """One large figure.

    Attributes:
        title: its name.
        figure: its value.
        unit: its unit.
        more: a line below.
        is_well: whether the value is normal; None where that cannot be decided.
    """

    title: str
    figure: str
    unit: str = ""
    more: str = ""
    is_well: bool | None = None


def show(_: Session, visit: Visit) -> Result:
    """Show the page; the stream `/live/overview` keeps it current."""
    return page(visit.system)


def page(system: System) -> View:
    """Show the page without the database; its first line says what is unreachable."""
    system.poller.hasten()
    snapshot = system.poller.latest
    wrong = len(snapshot.troubles) if snapshot else 0
    return View("overview.html", {"path": "/", "inside": inside(system.poller), "count": wrong})


def inside(poller: SnapshotPoller) -> str:
    """Return the part of the page that changes with each snapshot."""
    snapshot = poller.latest
    if snapshot is None:
        return render("overview_live.html", {"snapshot": None})
    # The newest may be in `hour` too, without later probes. A copy: the list grows meanwhile.
    snapshots = [*(kept for kept in list(poller.hour) if kept.at < snapshot.at), snapshot]
    wrong = {trouble.about for trouble in snapshot.troubles}
    return render(
        "overview_live.html",
        {
            "snapshot": snapshot,
            "tiles": tiles(snapshot, snapshots),
            "chart": _chart(snapshots),
            "queues": [
                (_of(snapshot, queue.name), history.depths(snapshots, snapshot.at, queue.name))
                for queue in topology.WORK_QUEUES
            ],
            "ladder": [_of(snapshot, rung.name) for rung in topology.RETRY_DELAYS],
            "journal": _of(snapshot, topology.JOURNAL.name),
            "wrong": wrong,
            "is_old": any(trouble.kind == "blind" for trouble in snapshot.troubles),
            "section": section,
            "fresh": FRESH,
        },
    )


def tiles(snapshot: Snapshot, snapshots: Sequence[Snapshot]) -> list[Tile]:
    """Return the figures above the queues."""
    a_minute = [
        _a_minute(title, history.per_minute(snapshots, snapshot.at, count), more)
        for title, count, more in (
            ("Accepted", history.accepted, "orders and their updates"),
            ("Recorded", history.recorded, "in the database"),
            ("Emailed", history.emailed, _refused(snapshot)),
        )
    ]
    if any(trouble.about == "mail" for trouble in snapshot.troubles):
        a_minute[-1] = replace(a_minute[-1], is_well=False)
    return [
        *a_minute,
        _latency(snapshot),
        *_proof(snapshot),
        _outbox(snapshot),
        _broker(snapshot),
        _database(snapshot),
    ]


def _a_minute(title: str, found: float | None, more: str) -> Tile:
    return (
        Tile(title, UNKNOWN, "", NOT_KNOWN)
        if found is None
        else Tile(title, number(found), "/min", more)
    )


def _refused(snapshot: Snapshot) -> str:
    """Return how many of the emailed were refused: the count includes these."""
    found = snapshot.sample.emails
    if found is None or not found.tried:
        return "sent, or refused for good"
    return f"{number(found.refused)} of the last {number(found.tried)} refused for good"


def _latency(snapshot: Snapshot) -> Tile:
    if snapshot.stats is None:
        return Tile("Order to email", UNKNOWN, "", NOT_KNOWN)
    if not snapshot.stats.latency.orders:
        return Tile("Order to email", UNKNOWN, "", "no order in the last day")
    found = snapshot.stats.latency
    return Tile(
        "Order to email",
        duration(found.emailed_p50),
        "p50",
        f"p99 {duration(found.emailed_p99)}; recorded in {duration(found.recorded_p50)}, "
        f"p99 {duration(found.recorded_p99)}",
    )


def _proof(snapshot: Snapshot) -> list[Tile]:
    """Return the age of the last proved order, of the scheme where it is oldest."""
    beats = [beat for beat in snapshot.sample.beats or () if beat.service == PROOF]
    newest = max(beats, key=lambda beat: beat.seen_at, default=None)
    if newest is None or snapshot.at - newest.seen_at > PROOF_IS_OFF:
        return []
    # Its other parts that fail, such as a late job, are troubles of their own.
    schemes = [report for report in newest.queues.values() if report.state != "failing"]
    times = [report.reached for report in schemes]
    is_well = snapshot.at - newest.seen_at <= FRESH and all(
        report.state == "proved" for report in schemes
    )
    if not times or None in times:
        return [Tile("Standing proof", UNKNOWN, "", "not proved yet", is_well=is_well)]
    oldest = min(time for time in times if time is not None)
    age = duration(max(0, round((snapshot.at - oldest).total_seconds())))
    more = "an order, from the request to its email" if is_well else "not proved since"
    return [Tile("Standing proof", age, "ago", more, is_well=is_well)]


def _outbox(snapshot: Snapshot) -> Tile:
    if snapshot.sample.outbox is None:
        return Tile("Outbox", UNKNOWN, "", NOT_KNOWN)
    since, parked = snapshot.sample.outbox_since, snapshot.sample.parked
    more = (
        "nothing waits"
        if since is None
        else f"the oldest for {duration((snapshot.at - since).total_seconds())}"
    )
    if parked:
        more += f"; {_counted(parked)} parked"
    return Tile("Outbox", _counted(snapshot.sample.outbox), "", more)


def _counted(rows: int) -> str:
    return number(rows) if rows <= COUNTED else f"over {number(COUNTED)}"


def _broker(snapshot: Snapshot) -> Tile:
    sample = snapshot.sample
    if sample.broker_error is not None or _is_away("broker", snapshot):
        return Tile("Broker", "away", "", "does not answer", is_well=False)
    if sample.alarm is not None:
        return Tile("Broker", "blocked", "", sample.alarm, is_well=False)
    consumers = sum(count.consumers for count in sample.counts.values())
    return Tile("Broker", "up", "", f"{consumers} consumers", is_well=True)


def _database(snapshot: Snapshot) -> Tile:
    stats = snapshot.stats
    if snapshot.sample.is_read_only:
        return Tile("Database", "read-only", "", "takes no writes", is_well=False)
    if (
        snapshot.sample.database_error is not None
        or stats is None
        or _is_away("database", snapshot)
    ):
        return Tile("Database", "away", "", "does not answer", is_well=False)
    is_well = stats.database.connections < 0.9 * stats.database.most_connections
    return Tile(
        "Database",
        "up",
        f"in {duration(stats.seconds)}",
        f"{stats.database.connections} of {stats.database.most_connections} connections, "
        f"{stats.database.bytes / 1e6:,.0f} MB",
        is_well=is_well,
    )


def _is_away(server: str, snapshot: Snapshot) -> bool:
    """Whether a trouble says so, also one found by a probe since the snapshot."""
    return any(trouble.key == f"{server}: away" for trouble in snapshot.troubles)


def _chart(snapshots: Sequence[Snapshot]) -> str:
    found: Any = history.flow(snapshots, snapshots[-1].at)
    return json.dumps([found.at, found.accepted, found.recorded, found.emailed])


def _of(snapshot: Snapshot, queue: str) -> Figures:
    return snapshot.figures.get(queue, Figures(queue, None))


PAGES = (Page("GET", "/", "watch", show, without_database=page),)
