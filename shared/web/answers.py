"""Response headers of all pages, error pages, and health endpoints."""

from collections.abc import Callable
from typing import Any, Protocol

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

from shared.http.errors import DATABASE_UNAVAILABLE, OVERLOADED, ApiError
from shared.http.mount import failure
from shared.web.results import PageError, View

# Neither inline nor third-party content (W3C, "Content Security Policy").
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Paths contain ids. Not no-referrer, because forms would send no Origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEEP = "public, max-age=31536000, immutable"
HSTS = "max-age=31536000"
"""Without includeSubDomains, because other hosts of the domain are not ours (RFC 6797, 6.1)."""
DATABASE_AWAY = "The database does not answer. Nothing was changed."
DATABASE_LEFT = (
    "The database no longer answers. Whether the action was done is not known: check before you "
    "repeat it."
)
"""Shown if an action had begun."""
USED_UP = "Too many requests at the same time. Nothing was changed: try again in a moment."
"""Shown if the connection pool is exhausted."""
_SENTENCES = {OVERLOADED[1]: USED_UP, DATABASE_UNAVAILABLE[1]: DATABASE_AWAY}


class Render(Protocol):
    """Renders templates."""

    def __call__(self, template: str, about: dict[str, Any]) -> str:
        """Return the HTML of a template with its variables."""


class Guard:
    """Middleware that adds the security and cache headers to all responses."""

    async def process_response(self, req: Request, resp: Response, _: Any, __: bool) -> None:
        """Called by Falcon."""
        for name, value in HEADERS.items():
            if resp.get_header(name) is None:  # a page may be stricter
                resp.set_header(name, value)
        # Not over plain HTTP (RFC 6797, 7.2); TLS ends at the proxy.
        if req.forwarded_scheme == "https":
            resp.set_header("Strict-Transport-Security", HSTS)
        # URLs of static files change with their content; pages are personal.
        is_static = req.path.startswith("/static/") and resp.status_code == 200
        resp.set_header("Cache-Control", KEEP if is_static else "no-store")


def add_error_handlers(app: falcon.asgi.App[Any, Any], render: Render) -> None:
    """Render all errors of the app with `error.html`."""

    def write_error(resp: Response, status: int, sentence: str) -> None:
        resp.status = status
        resp.content_type = falcon.MEDIA_HTML
        resp.text = render("error.html", {"status": status, "sentence": sentence})

    async def on_page_error(_: Request, resp: Response, error: PageError, __: Any) -> None:
        write_error(resp, error.status, error.sentence)
        if error.retry_after:
            resp.set_header("Retry-After", str(error.retry_after))

    async def on_api_error(_: Request, resp: Response, error: ApiError, __: Any) -> None:
        write_error(resp, error.status, error.error)
        resp.set_headers(error.headers)

    async def on_http_error(_: Request, resp: Response, error: falcon.HTTPError, __: Any) -> None:
        sentence = error.description or "There is no such page."
        write_error(resp, error.status_code, sentence)

    async def on_exception(req: Request, resp: Response, error: Exception, __: Any) -> None:
        found = failure(req, error)
        write_error(resp, found.status, _SENTENCES.get(found.code, found.error))
        resp.set_headers(found.headers)

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ApiError, on_api_error)
    app.add_error_handler(PageError, on_page_error)


def write_view(resp: Response, view: View, html: str) -> None:
    """Write a view's HTML, status and headers to a response."""
    resp.status = view.status
    resp.content_type = falcon.MEDIA_HTML
    resp.set_headers(dict(view.headers))
    resp.text = html


class Readyz:
    """`GET /readyz`: whether the process is ready; otherwise 503 and the reason.

    Args:
        wrong: returns the problem as a sentence, or an empty text.
    """

    def __init__(self, wrong: Callable[[], str]) -> None:
        self._wrong = wrong

    async def on_get(self, _: Request, resp: Response) -> None:
        """Respond to health checks of containers and load balancers."""
        reason = self._wrong()
        resp.status = falcon.HTTP_503 if reason else falcon.HTTP_200
        resp.media = {"status": "not ready", "reason": reason} if reason else {"status": "ready"}

    on_head = on_get


class Healthz:
    """`GET /healthz`: whether the process responds at all."""

    async def on_get(self, _: Request, resp: Response) -> None:
        """Respond 200."""
        resp.media = {"status": "alive"}

    on_head = on_get
