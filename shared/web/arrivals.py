"""Handles requests without a session: redirects to sign in, and arrivals from other sites.

A browser does not send `SameSite=Strict` cookies when a link of another site leads here (RFC
6265bis, 8.8.2). A page of our own that navigates to the same URL makes it send them.
"""

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, urlencode, urlsplit

from falcon.asgi import Request

from shared.web.forms import SentForm
from shared.web.results import BACK, PageError, View, own_path

SIGN_IN = "/sign-in"
ENDED = "Your session had ended: nothing of what you sent was done."
"""Shown on the sign-in page for `said=ended`."""


def hides_cookies(req: Request) -> bool:
    """Return whether a browser withholds its cookies because another site led here.

    Determined by Fetch Metadata (W3C). A browser without it is redirected to sign in.
    """
    is_navigation = req.get_header("Sec-Fetch-Mode") == "navigate"
    return is_navigation and req.get_header("Sec-Fetch-Site") == "cross-site"


def lead_on(req: Request) -> View:
    """Return the page that navigates to the requested URL, without a script."""
    query = f"?{req.query_string}" if req.query_string else ""
    return View("arriving.html", {"to": own_path(quote(req.path) + query)})


def to_sign_in(req: Request, sent: SentForm, shows: Callable[[str], str]) -> str:
    """Return the URL of the sign-in page, which leads back to the requested page.

    A form is not submitted again: the user returns to its page, and the sign-in page says so.

    Args:
        req: the request.
        sent: its form.
        shows: returns a path, or `/` for one that has no page.
    """
    if req.method == "GET":
        wanted, notice = req.relative_uri, {}
    else:
        wanted, notice = shows(_page_of(req, sent)), {"said": "ended"}
    query = ({} if wanted == "/" else {"next": wanted}) | notice
    return f"{SIGN_IN}?{urlencode(query, quote_via=quote, safe='')}" if query else SIGN_IN


def _page_of(req: Request, sent: SentForm) -> str:
    """Return the path of the page of a form, from its field or the Referer."""
    with suppress(PageError):
        if back := sent.fields({}).get(BACK):
            return own_path(back[0])
    referrer = urlsplit(req.get_header("Referer") or "")
    is_ours = referrer.netloc == req.netloc
    return own_path(referrer._replace(scheme="", netloc="").geturl()) if is_ours else "/"
