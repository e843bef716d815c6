"""The customer's page: one order, by the link of an email, in its language, without a cookie.

Whatever is wrong, a customer is told so on a page for customers: nobody else comes below `/track`.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from falcon.asgi import Request, Response

from services.portal.web.api import Api, Asking, Refused
from services.portal.web.rendering import render
from shared.http.callers import client_address
from shared.http.errors import ApiError
from shared.http.lanes import Lane
from shared.languages import time_zones
from shared.languages.language import language
from shared.languages.way import steps
from shared.security.networks import network_of
from shared.web.answers import write_view
from shared.web.results import PageError, View

PATH = "/track/{token}"
BELOW = r"/track(/|$)"
HEADERS = {
    # The address of this page is all that is needed to see it: it goes nowhere.
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
MOST_KEPT = 10_000
"""Links whose language is known; of a link that was never shown it is not."""
AGAIN_SECONDS = 60

log = structlog.get_logger()


class Tracking:
    """`GET /track/{token}`.

    Args:
        api: which it asks.
        lane: where it waits for it.
    """

    def __init__(self, api: Api, lane: Lane) -> None:
        self._api = api
        self._lane = lane
        self._languages: OrderedDict[str, str] = OrderedDict()

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        """The order, or why it is not shown."""
        address = client_address(req)
        asking = self._api.for_browser(address, "")
        try:
            order = await self._lane.run(partial(_find, asking, token), network_of(address))
            view = self._order(token, order) if order else _without("none", 404)
        except Refused as refused:
            is_busy = refused.status == HTTPStatus.TOO_MANY_REQUESTS
            why, status = ("busy", refused.status) if is_busy else ("away", 503)
            view = _without(why, status, self._languages.get(token, ""), refused.retry_after)
        except (PageError, ApiError) as error:
            view = _without("away", error.status, self._languages.get(token, ""))
        except Exception:
            log.exception("unhandled_error", method=req.method, route=req.uri_template)
            view = _without("away", 500, self._languages.get(token, ""))
        _write(resp, view)

    on_head = on_get

    def _order(self, token: str, order: Mapping[str, Any]) -> View:
        say = language(order["language"])
        self._languages[token] = say.code
        self._languages.move_to_end(token)
        if len(self._languages) > MOST_KEPT:
            self._languages.popitem(last=False)
        about = {
            "order": order,
            "seller": order["display_name"] or order["company_name"],
            "say": say,
            "zone": time_zones.zone(order["time_zone"]),
            "steps": steps(say, order["tracking_status"]),
        }
        return View("tracking.html", about)


async def lost(req: Request, resp: Response | None, **_: Any) -> None:  # noqa: ARG001 - Falcon's
    """What a link that is not whole, or has more behind it, leads to."""
    if resp is not None:  # Falcon has none for a WebSocket
        _write(resp, _without("none", 404))


def _find(asking: Asking, token: str) -> dict[str, Any] | None:
    return None if "\0" in token else asking.find(f"/tracking/{quote(token, safe='')}/")


def _without(why: str, status: int, code: str = "", seconds: int = 0) -> View:
    """The page where no order is shown.

    Args:
        why: `none`, `busy` or `away`.
        status: of the answer.
        code: the seller's language; empty where that is not known.
        seconds: after which it may be asked for again; 0: nobody has said.
    """
    seconds = seconds or AGAIN_SECONDS
    headers = {} if why == "none" else {"Retry-After": str(seconds)}
    about = {"order": None, "why": why, "seconds": seconds, "say": language(code)}
    return View("tracking.html", about, status, headers)


def _write(resp: Response, view: View) -> None:
    resp.set_headers(HEADERS)
    write_view(resp, view, render(view.template, dict(view.about)))
