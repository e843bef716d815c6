"""The customer's page: one order, opened by the link of an email, in the seller's language.

It needs no cookie. Every error below `/track` is a page for customers, too.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from falcon.asgi import Request, Response

from services.portal.web.api import Api, ApiClient, Refused
from services.portal.web.rendering import render
from shared.http.callers import client_address
from shared.http.errors import ApiError
from shared.http.lanes import Lane
from shared.languages import time_zones
from shared.languages.delivery_steps import steps
from shared.languages.language import language
from shared.security.networks import network_of
from shared.web.answers import write_view
from shared.web.browsers import preferred_language
from shared.web.results import PageError, View

PATH = "/track/{token}"
BELOW = r"/track(/|$)"
HEADERS = {
    # The URL of this page is all that is needed to see the order: do not leak it.
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
MAX_LANGUAGES = 10_000
"""Links whose language is remembered for error pages; the least recently shown one is dropped."""
RETRY_SECONDS = 60

log = structlog.get_logger()


class Tracking:
    """`GET /track/{token}`.

    Args:
        api: the client of the API.
        lane: the threads in which the API is called.
    """

    def __init__(self, api: Api, lane: Lane) -> None:
        self._api = api
        self._lane = lane
        self._languages: OrderedDict[str, str] = OrderedDict()

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        """Show the order, or the reason why it is not shown."""
        address = client_address(req)
        api = self._api.for_browser(address, "")
        code = self._languages.get(token) or _preferred(req)
        try:
            order = await self._lane.run(partial(_find, api, token), network_of(address))
            view = self._order(token, order) if order else _error("none", 404, code)
        except Refused as refused:
            is_busy = refused.status == HTTPStatus.TOO_MANY_REQUESTS
            why, status = ("busy", refused.status) if is_busy else ("away", 503)
            view = _error(why, status, code, refused.retry_after)
        except (PageError, ApiError) as error:
            view = _error("away", error.status, code)
        except Exception:
            log.exception("unhandled_error", method=req.method, route=req.uri_template)
            view = _error("away", 500, code)
        _write(resp, view)

    on_head = on_get

    def _order(self, token: str, order: Mapping[str, Any]) -> View:
        say = language(order["language"])
        self._languages[token] = say.code
        self._languages.move_to_end(token)
        if len(self._languages) > MAX_LANGUAGES:
            self._languages.popitem(last=False)
        about = {
            "order": order,
            "seller": order["display_name"] or order["company_name"],
            "say": say,
            "zone": time_zones.zone(order["time_zone"]),
            "steps": steps(say, order["tracking_status"]),
        }
        return View("tracking.html", about)


async def not_found(req: Request, resp: Response | None, **_: Any) -> None:
    """Answer a link that is incomplete or has further path segments."""
    if resp is not None:  # Falcon passes none for a WebSocket
        _write(resp, _error("none", 404, _preferred(req)))


def _preferred(req: Request) -> str:
    return preferred_language(req.get_header("Accept-Language") or "")


def _find(api: ApiClient, token: str) -> dict[str, Any] | None:
    return None if "\0" in token else api.find(f"/tracking/{quote(token, safe='')}/")


def _error(why: str, status: int, code: str, seconds: int = 0) -> View:
    """Return the page without an order.

    Args:
        why: `none`, `busy` or `away`.
        status: the HTTP status.
        code: the language; empty for the default.
        seconds: the `Retry-After`; 0 for the default.
    """
    seconds = seconds or RETRY_SECONDS
    headers = {} if why == "none" else {"Retry-After": str(seconds)}
    about = {"order": None, "why": why, "seconds": seconds, "say": language(code)}
    return View("tracking.html", about, status, headers)


def _write(resp: Response, view: View) -> None:
    resp.set_headers(HEADERS)
    write_view(resp, view, render(view.template, dict(view.about)))
