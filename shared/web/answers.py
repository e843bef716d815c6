"""What every answer of a site carries, and its errors as pages."""

from collections.abc import Callable
from typing import Any, Protocol

import falcon
import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from shared.db.session import is_database_away, is_used_up
from shared.http.errors import ApiError
from shared.web.results import PageError, View

# Nothing inline and nothing from elsewhere (W3C, "Content Security Policy").
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The paths of pages have ids in them. Not no-referrer: forms would lose their origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEEP = "public, max-age=31536000, immutable"
HSTS = "max-age=31536000"
"""For this host; what else is in its domain is not ours to say (RFC 6797, 6.1)."""
DATABASE_AWAY = "The database does not answer. Nothing was changed."
DATABASE_LEFT = (
    "The database does not answer any more. Whether it was done is not known: look before you do "
    "it again."
)
"""Said where something was begun."""
USED_UP = "Too much is asked of this process at once. Nothing was changed: try again in a moment."
"""Said where it has no connection to the database left, which is there."""

log = structlog.get_logger()


class Render(Protocol):
    """Makes a page of a template and what it is about."""

    def __call__(self, template: str, about: dict[str, Any]) -> str:
        """The page, as HTML."""


class Guard:
    """Gives every answer the headers that hold for all of them."""

    async def process_response(self, req: Request, resp: Response, _: Any, __: bool) -> None:
        """Called by Falcon."""
        for name, value in HEADERS.items():
            if resp.get_header(name) is None:  # a page may be stricter
                resp.set_header(name, value)
        # Not over plain HTTP (RFC 6797, 7.2), which is how a site of ours itself speaks.
        if req.forwarded_scheme == "https":
            resp.set_header("Strict-Transport-Security", HSTS)
        # Static files are asked for by names that change with them; pages are for one person.
        is_static = req.path.startswith("/static/") and resp.status_code == 200
        resp.set_header("Cache-Control", KEEP if is_static else "no-store")


def add_error_handlers(app: falcon.asgi.App[Any, Any], render: Render) -> None:
    """Make every error of the app a page, `error.html`."""

    def write_error(resp: Response, status: int, sentence: str) -> None:
        resp.status = status
        resp.content_type = falcon.MEDIA_HTML
        resp.text = render("error.html", {"status": status, "sentence": sentence})

    async def on_page_error(_: Request, resp: Response, error: PageError, __: Any) -> None:
        write_error(resp, error.status, error.sentence)

    async def on_api_error(_: Request, resp: Response, error: ApiError, __: Any) -> None:
        write_error(resp, error.status, error.error)
        resp.set_headers(error.headers)

    async def on_http_error(_: Request, resp: Response, error: falcon.HTTPError, __: Any) -> None:
        sentence = error.description or "There is no such page."
        write_error(resp, error.status_code, sentence)

    async def on_exception(req: Request, resp: Response, error: Exception, __: Any) -> None:
        if is_used_up(error):
            log.warning("connections_used_up", route=req.uri_template)
            write_error(resp, 503, USED_UP)
            return
        if is_database_away(error):
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            write_error(resp, 503, DATABASE_AWAY)
            return
        log.error("unhandled_error", method=req.method, route=req.uri_template, exc_info=error)
        write_error(resp, 500, "Something broke on our side. It was logged.")

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ApiError, on_api_error)
    app.add_error_handler(PageError, on_page_error)


def write_view(resp: Response, view: View, html: str) -> None:
    """Answer with a page."""
    resp.status = view.status
    resp.content_type = falcon.MEDIA_HTML
    resp.set_headers(dict(view.headers))
    resp.text = html


class Readyz:
    """`GET /readyz`: whether the process is at work; 503 and why when it is not.

    Args:
        wrong: gives what is wrong, a sentence; nothing while all is well.
    """

    def __init__(self, wrong: Callable[[], str]) -> None:
        self._wrong = wrong

    async def on_get(self, _: Request, resp: Response) -> None:
        """For a container's check and for probes."""
        reason = self._wrong()
        resp.status = falcon.HTTP_503 if reason else falcon.HTTP_200
        resp.media = {"status": "not ready", "reason": reason} if reason else {"status": "ready"}

    on_head = on_get


class Healthz:
    """`GET /healthz`: whether the process answers at all."""

    async def on_get(self, _: Request, resp: Response) -> None:
        """Always 200."""
        resp.media = {"status": "alive"}

    on_head = on_get
