"""`fellow queues`: every queue's figures, and current alerts."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from services.ops.cli.terminal import (
    FAILED,
    AsJson,
    Table,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.monitoring import alerts
from services.ops.monitoring.queue_stats import Figures, Sample, figures
from services.ops.monitoring.sampler import Sampler
from services.ops.times import duration
from shared.bus.broker import addresses
from shared.db.session import make_engine

WATCH_SECONDS = 2.0


def show(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat every 2 s.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every queue's length, consumers, rates and oldest message's age; and current alerts.

    With --watch --json: a line of JSON per sample.
    """
    system = find_system()
    engine = make_engine(system.settings) if system.has_database else None
    config = system.settings
    with closing(Sampler(config.amqp_url, engine, config.intake_shards)) as sampler:
        if watch:
            _watch(sampler, as_json)
            return
        sample = sampler.take()
        if sample.broker_error is not None:
            where = addresses.place(config.amqp_url)
            stop(f"The broker at {where} did not do it: {sample.broker_error}")
        found = figures([sample])
        if as_json:
            print_json(found)
        else:
            results(markup=True).print(_page(found, []))
            for trouble in alerts.troubles([sample]):
                say(trouble.text)
        missing = [queue.name for queue in found if queue.ready is None and not queue.silent]
        if missing:
            say(
                f"{len(missing)} of {len(found)} queues are not there: "
                "nothing has declared them yet."
            )
        if any(queue.ready is None for queue in found):
            raise typer.Exit(FAILED)


def _watch(sampler: Sampler, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                sampler.take()
                print(msgspec.json.encode(_state(sampler.samples)).decode(), flush=True)
                time.sleep(WATCH_SECONDS)
        console = results(markup=True)
        if not console.is_terminal:  # a pipe gets one page after the other
            while True:
                sample = sampler.take()
                console.print(local(sample.at))
                console.print(_page(figures(sampler.samples), alerts.troubles(sampler.samples)))
                console.file.flush()
                time.sleep(WATCH_SECONDS)
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                sampler.take()
                samples = sampler.samples
                live.update(_page(figures(samples), alerts.troubles(samples)), refresh=True)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _state(samples: Sequence[Sample]) -> dict[str, object]:
    return {
        "at": samples[-1].at,
        "queues": figures(samples),
        "troubles": alerts.troubles(samples),
    }


def _page(found: Sequence[Figures], troubles: Sequence[alerts.Trouble]) -> Group:
    table = Table("queue", header_style="bold")
    for heading in ("ready", "unacked", "consumers", "in/s", "out/s", "oldest", "dead"):
        table.add_column(heading, justify="right")
    for queue in found:
        table.add_row(
            queue.name,
            _ready(queue),
            _number(queue.unacked),
            _number(queue.consumers),
            _rate(queue.in_rate),
            _rate(queue.out_rate),
            _age(queue),
            f"[red]{queue.dead}[/]" if queue.dead else _number(queue.dead),
        )
    styles = {"down": "red", "warning": "yellow"}
    return Group(*(Text(t.text, style=styles[t.level]) for t in troubles), table)


def _ready(queue: Figures) -> str:
    if queue.silent:
        return "silent"
    return "missing" if queue.ready is None else str(queue.ready)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _age(queue: Figures) -> str:
    if queue.oldest_seconds is None:
        return "-"
    signs = {"about": "", "at most": "<", "at least": ">"}
    return signs[queue.oldest_bound or "about"] + duration(queue.oldest_seconds).replace(" ", "")
