"""The customer's page: one order, by the link of an email, in its language, without a cookie."""

from urllib.parse import quote

from falcon.asgi import Request, Response

from services.portal.web.api import Api
from services.portal.web.rendering import render
from shared.http.lanes import Lane
from shared.http.mount import client_address
from shared.languages import time_zones
from shared.languages.language import language
from shared.web.answers import write_view
from shared.web.results import PageError, View

PATH = "/track/{token}"
HEADERS = {
    # The address of this page is all that is needed to see it: it goes nowhere.
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}


class Tracking:
    """`GET /track/{token}`.

    Args:
        api: which it asks.
        lane: where it waits for it.
    """

    def __init__(self, api: Api, lane: Lane) -> None:
        self._api = api
        self._lane = lane

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        """The order, or that there is none."""
        for name, value in HEADERS.items():
            resp.set_header(name, value)
        asking = self._api.for_browser(client_address(req), "")

        def run() -> View:
            if "\0" in token:
                raise PageError(404, "This link leads to no order.")
            order = asking.find(f"/tracking/{quote(token, safe='')}/")
            wanted = order["language"] if order else ""
            zone = time_zones.zone(order["time_zone"] if order else "")
            about = {"order": order, "say": language(wanted), "zone": zone}
            return View("tracking.html", about, 200 if order else 404)

        view = await self._lane.run(run)
        write_view(resp, view, render(view.template, dict(view.about)))
