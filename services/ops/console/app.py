"""Builds the console's ASGI app from its parts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import falcon.asgi
from kombu import Connection
from sqlalchemy.orm import Session

from services.ops.alerting.alerter import keep_alerting
from services.ops.alerting.channels import channels
from services.ops.broker.connection import BROKER_ERRORS, open_connection
from services.ops.broker.hold import BusyError
from services.ops.commands.giving import NotKnownError
from services.ops.console.pages import (
    audit,
    businesses,
    jobs,
    kyc,
    lists,
    outbox,
    overview,
    retry_queues,
    runbook,
    timelines,
    troubles,
)
from services.ops.console.pages.dead import changes, letters, rehearsal
from services.ops.console.signing_in import second_factor, sessions, sign_in
from services.ops.console.web.event_stream import Live
from services.ops.console.web.jobs import Jobs
from services.ops.console.web.masking import mask
from services.ops.console.web.mount import mount
from services.ops.console.web.page import Page, System
from services.ops.console.web.rendering import STATIC, render
from services.ops.console.web.session_cache import Visitors
from services.ops.dead_letters import retention
from services.ops.dead_letters.digest import Digests
from services.ops.monitoring.alerts import too_old
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.monitoring.snapshot import SnapshotCollector
from services.ops.users import resealing
from services.ops.users import second_factor as user_second_factor
from services.ops.users import sessions as user_sessions
from shared.bus.broker.refusal import explain
from shared.config.loading import settings
from shared.config.settings import Settings
from shared.db.session import release_connection
from shared.http.lanes import Lane, Lanes, for_passwords
from shared.periodic import keep_running
from shared.telemetry import metrics
from shared.telemetry.logs import configure
from shared.web.mount import make_app
from shared.web.results import RETRY_SECONDS, PageError

SESSIONS_SECONDS = 300.0
"""Between two deletions of expired sessions."""
DIGESTS_SECONDS = 2.0
"""Between two checks for long dead queues whose digest is old."""
THREADS = 8
WAITING = 64

PAGES: tuple[Page, ...] = (
    *sign_in.PAGES,
    *second_factor.PAGES,
    *sessions.PAGES,
    *overview.PAGES,
    *troubles.PAGES,
    *runbook.PAGES,
    *kyc.PAGES,
    *letters.PAGES,
    *changes.PAGES,
    *rehearsal.PAGES,
    *retry_queues.PAGES,
    *outbox.PAGES,
    *jobs.PAGES,
    *timelines.PAGES,
    *businesses.PAGES,
    *lists.PAGES,
    *audit.PAGES,
)
"""Every page there is."""


class Console:
    """Owns the parts that live as long as the process.

    Falcon calls `process_startup` and `process_shutdown` by the ASGI lifespan protocol.
    """

    def __init__(self, config: Settings) -> None:
        self._collector = SnapshotCollector(config)
        self._chores: list[asyncio.Task[None]] = []
        self.lanes = Lanes(
            ordinary=Lane("console", THREADS, WAITING), passwords=for_passwords("console passwords")
        )
        collector = self._collector
        poller = SnapshotPoller(collector.collect, collector.ask_database, collector.ask_broker)
        broker = _broker(config, poller)
        self.system = System(
            config=config,
            broker=broker,
            poller=poller,
            digests=Digests(
                partial(open_connection, config.amqp_url), lambda reason: str(mask(reason, ""))
            ),
            jobs=Jobs(),
            visitors=Visitors(config),
        )

    def wrong(self) -> str:
        """Return why the console has no current snapshot; empty while it has one."""
        snapshot = self.system.poller.latest
        if snapshot is None or too_old(snapshot.at, datetime.now(UTC)) is not None:
            return "The servers were not looked at lately."
        return "The database does not answer." if snapshot.sample.database_error else ""

    async def process_startup(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Start polling, alerts, cleanups and the resealing of second factors."""
        config = self.system.config
        metrics.serve(config)
        self.system.poller.start()
        self._chores = [
            asyncio.create_task(retention.run_retention(config)),
            asyncio.create_task(resealing.keep_sealing()),
            asyncio.create_task(
                keep_running(
                    "sessions", SESSIONS_SECONDS, partial(user_sessions.delete_ended, config)
                )
            ),
            asyncio.create_task(
                keep_running("offers", SESSIONS_SECONDS, user_second_factor.forget_offers)
            ),
            asyncio.create_task(keep_running("digests", DIGESTS_SECONDS, self._keep_digests)),
            asyncio.create_task(keep_alerting(config, channels(config), self.system.poller)),
        ]

    async def process_shutdown(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Stop jobs and polling; release connections and threads."""
        self.system.jobs.stop()
        self.system.digests.stop()
        for chore in self._chores:
            chore.cancel()
        await self.system.poller.stop()
        self._collector.close()
        self.lanes.shutdown()

    def _keep_digests(self) -> None:
        snapshot = self.system.poller.latest
        if snapshot is None or snapshot.sample.broker_error is not None:
            return
        with suppress(*BROKER_ERRORS):  # the next snapshot reports it
            self.system.digests.keep(snapshot.sample.counts)


def create_app(config: Settings | None = None) -> falcon.asgi.App[Any, Any]:
    """Return the ASGI app.

    Args:
        config: the settings; by default the environment's.
    """
    config = config or settings()
    configure(config, "services.ops.console")
    console = Console(config)
    app = make_app(console, render, STATIC)
    mount(app, PAGES, console.system, console.lanes)
    app.add_route(
        "/live/overview",
        Live(console.system, lambda _: overview.inside(console.system.poller)),
    )
    return app


def _broker(config: Settings, poller: SnapshotPoller) -> Any:
    @contextmanager
    def opened(session: Session | None, *, gives: bool = False) -> Iterator[Connection]:
        if session is not None:
            release_connection(session)
        if (away := poller.broker_error) is not None:
            sentence = f"The broker does not answer: {away} Nothing was sent to it."
            raise PageError(503, sentence, RETRY_SECONDS)
        if gives and (alarm := poller.broker_alarm) is not None:
            # The connection would hold it, and may deliver it hours later.
            sentence = f"The broker takes no messages: {alarm}. Nothing was sent to it."
            raise PageError(503, sentence, RETRY_SECONDS)
        try:
            with poller.at_broker(), open_connection(config.amqp_url) as connection:
                yield connection
        except (NotKnownError, BusyError) as error:
            raise PageError(503, str(error)) from None
        except BROKER_ERRORS as error:
            # Whether the broker handled what was sent is unknown.
            raise PageError(
                503, f"The broker does not confirm it: {explain(error).sentence}"
            ) from None

    return opened
