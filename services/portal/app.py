"""The portal's ASGI app and its parts."""

import asyncio
from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from services.portal.pages import (
    account,
    activity,
    first_request,
    kyc,
    orders,
    overview,
    registration,
    requests,
    secret,
    sign_in,
    signature,
    tracking,
    uploads,
)
from services.portal.pages import (
    settings as own_settings,
)
from services.portal.web import sessions
from services.portal.web.api import Api, Refused
from services.portal.web.mount import mount
from services.portal.web.page import Page
from services.portal.web.rendering import STATIC, render
from shared.config.loading import settings
from shared.config.settings import Settings
from shared.http.lanes import Lane, Lanes
from shared.periodic import keep_running
from shared.telemetry import heartbeat, metrics
from shared.telemetry.logs import configure
from shared.web.answers import write_view
from shared.web.mount import make_app
from shared.web.results import View

NAME = "services.portal"
THREADS = 16
"""More than the cores: a thread mostly waits for the API."""
WAITING = 128
SESSIONS_SECONDS = 300.0
"""Interval at which expired sessions are deleted."""
PASSWORD_THREADS = 8
PASSWORD_WAITING = 32

PAGES: tuple[Page, ...] = (
    *sign_in.PAGES,
    *registration.PAGES,
    *overview.PAGES,
    *kyc.PAGES,
    *secret.PAGES,
    *first_request.PAGES,
    *requests.PAGES,
    *signature.PAGES,
    *orders.PAGES,
    *uploads.PAGES,
    *own_settings.PAGES,
    *activity.PAGES,
    *account.PAGES,
)
"""Every page for businesses."""


class Portal:
    """The parts with the lifetime of the process.

    Falcon calls `process_startup` and `process_shutdown` by the ASGI lifespan protocol.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._chores: list[asyncio.Task[None]] = []
        self._pulse = heartbeat.Pulse()
        self.api = Api(config)
        self.lanes = Lanes(
            ordinary=Lane("portal", THREADS, WAITING),
            passwords=Lane("portal passwords", PASSWORD_THREADS, PASSWORD_WAITING),
        )

    def wrong(self) -> str:
        """Return why the process is not ready; empty while it is."""
        return self._pulse.wrong

    async def process_startup(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Start metrics, heartbeats and the deletion of expired sessions."""
        metrics.serve(self._config)
        self._chores = [
            asyncio.create_task(heartbeat.run_heartbeat(NAME, list, self._pulse)),
            asyncio.create_task(
                keep_running("sessions", SESSIONS_SECONDS, sessions.delete_expired)
            ),
        ]

    async def process_shutdown(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Stop the tasks and close threads and connections."""
        for chore in self._chores:
            chore.cancel()
        self.lanes.shutdown()
        self.api.close()


def create_app(config: Settings | None = None) -> falcon.asgi.App[Any, Any]:
    """Return the ASGI app.

    Args:
        config: the settings; by default those of the environment.
    """
    config = config or settings()
    configure(config, NAME)
    portal = Portal(config)
    app = make_app(portal, render, STATIC)
    app.add_error_handler(Refused, on_refused)
    app.add_route(tracking.PATH, tracking.Tracking(portal.api, portal.lanes.ordinary))
    app.add_sink(tracking.not_found, tracking.BELOW)
    mount(app, PAGES, config, portal.api, portal.lanes)
    return app


async def on_refused(_: Request, resp: Response, refused: Refused, __: Any) -> None:
    """Answer with the API's error, if the page does not handle it."""
    about = {"status": refused.status, "sentence": refused.sentence}
    wait = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
    view = View("error.html", about, refused.status, wait)
    write_view(resp, view, render(view.template, about))
