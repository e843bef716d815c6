"""The console's app: every part is made and joined here."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import falcon.asgi
from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection
from sqlalchemy.orm import Session

from services.ops.alerting.channels import channels
from services.ops.alerting.telling import keep_telling
from services.ops.broker.connection import open_connection
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
from services.ops.monitoring.poller import Lookout
from services.ops.monitoring.snapshot import Looker
from services.ops.users import resealing
from services.ops.users import second_factor as user_second_factor
from services.ops.users import sessions as user_sessions
from shared.bus.broker.refusal import explain
from shared.config.loading import settings
from shared.config.settings import Settings
from shared.db.session import let_go
from shared.http.lanes import Lane, Lanes, for_passwords
from shared.periodic import keep_running
from shared.telemetry import metrics
from shared.telemetry.logs import configure
from shared.web.mount import make_app
from shared.web.results import PageError

SESSIONS_SECONDS = 300.0
"""From one look for sessions that are over to the next."""
DIGESTS_SECONDS = 2.0
"""The same for long dead queues that were not looked through lately."""
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
    """The parts that live as long as the process.

    Falcon calls `process_startup` and `process_shutdown` by the ASGI lifespan protocol.
    """

    def __init__(self, config: Settings) -> None:
        self._looker = Looker(config)
        self._chores: list[asyncio.Task[None]] = []
        self.lanes = Lanes(
            ordinary=Lane("console", THREADS, WAITING), passwords=for_passwords("console passwords")
        )
        lookout = Lookout(self._looker.look)
        broker = _broker(config, lookout)
        self.system = System(
            config=config,
            broker=broker,
            lookout=lookout,
            digests=Digests(
                partial(open_connection, config.amqp_url), lambda reason: str(mask(reason, ""))
            ),
            jobs=Jobs(),
            visitors=Visitors(config),
        )

    def wrong(self) -> str:
        """Why it does not see how the system is; nothing while it does."""
        look = self.system.lookout.latest
        if look is None or too_old(look.at, datetime.now(UTC)) is not None:
            return "The servers were not looked at lately."
        return "The database does not answer." if look.sample.database_error else ""

    async def process_startup(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Begin to look, to tell, to end what is over, to seal anew what an old key sealed."""
        config = self.system.config
        metrics.serve(config)
        self.system.lookout.start()
        self._chores = [
            asyncio.create_task(retention.keep_ending(config)),
            asyncio.create_task(resealing.keep_sealing()),
            asyncio.create_task(
                keep_running("sessions", SESSIONS_SECONDS, partial(user_sessions.end_over, config))
            ),
            asyncio.create_task(
                keep_running("offers", SESSIONS_SECONDS, user_second_factor.forget_offers)
            ),
            asyncio.create_task(keep_running("digests", DIGESTS_SECONDS, self._keep_digests)),
            asyncio.create_task(keep_telling(config, channels(config), self.system.lookout)),
        ]

    async def process_shutdown(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Release what it holds."""
        self.system.jobs.stop()
        self.system.digests.stop()
        for chore in self._chores:
            chore.cancel()
        await self.system.lookout.stop()
        self._looker.close()
        self.lanes.shutdown()

    def _keep_digests(self) -> None:
        look = self.system.lookout.latest
        if look is None or look.sample.broker_error is not None:
            return
        with suppress(OSError, AMQPError):  # what the broker lacks the next look says
            self.system.digests.keep(look.sample.counts)


def create_app(config: Settings | None = None) -> falcon.asgi.App[Any, Any]:
    """The ASGI app.

    Args:
        config: the settings; those of the environment when not given.
    """
    config = config or settings()
    configure(config, "services.ops.console")
    console = Console(config)
    app = make_app(console, render, STATIC)
    mount(app, PAGES, console.system, console.lanes)
    app.add_route(
        "/live/overview",
        Live(console.system, lambda _: overview.inside(console.system.lookout)),
    )
    return app


def _broker(config: Settings, lookout: Lookout) -> Any:
    @contextmanager
    def opened(session: Session | None, *, gives: bool = False) -> Iterator[Connection]:
        if session is not None:
            let_go(session)
        if (away := lookout.broker_error) is not None:
            raise PageError(503, f"The broker does not answer: {away} Nothing was sent to it.")
        if gives and (alarm := lookout.broker_alarm) is not None:
            # What is sent now waits in the connection, and may come out hours later.
            raise PageError(503, f"The broker takes no messages: {alarm}. Nothing was sent to it.")
        try:
            with open_connection(config.amqp_url) as connection:
                yield connection
        except (NotKnownError, BusyError) as error:
            raise PageError(503, str(error)) from None
        except (OSError, AMQPError, MessageNacked) as error:
            # Of what was sent to it nobody knows whether it was done.
            raise PageError(
                503, f"The broker does not confirm it: {explain(error).sentence}"
            ) from None

    return opened
