"""Browsers in which nobody seems to be signed in, and where they are led.

One that a link of another site has led here does not show a `Strict` cookie (RFC 6265bis, 8.8.2). A
page of our own that leads on to the same address has it show them.
"""

from contextlib import suppress
from urllib.parse import quote, urlencode, urlsplit

from falcon.asgi import Request

from shared.web.forms import SentForm
from shared.web.results import BACK, PageError, View, own_path

SIGN_IN = "/sign-in"
ENDED = "Your session had ended: nothing of what you sent was done."
"""What the page to sign in says to whom it is `said=ended`."""


def hides_cookies(req: Request) -> bool:
    """Whether a browser shows us no cookie because of where it comes from (W3C, "Fetch Metadata").

    One that does not say where from is asked to sign in, as one that has no cookie.
    """
    is_led = req.get_header("Sec-Fetch-Mode") == "navigate"
    return is_led and req.get_header("Sec-Fetch-Site") == "cross-site"


def lead_on(req: Request) -> View:
    """The page that leads to what was asked for, without a script."""
    query = f"?{req.query_string}" if req.query_string else ""
    return View("arriving.html", {"to": own_path(quote(req.path) + query)})


def to_sign_in(req: Request, sent: SentForm) -> str:
    """Where to sign in, to come back to what was asked for.

    A form is not sent again: one comes back to the page that it was on, and is told so.

    Args:
        req: the request.
        sent: its form.
    """
    if req.method == "GET":
        wanted, said = req.relative_uri, {}
    else:
        wanted, said = _page_of(req, sent), {"said": "ended"}
    query = ({} if wanted == "/" else {"next": wanted}) | said
    return f"{SIGN_IN}?{urlencode(query, quote_via=quote, safe='')}" if query else SIGN_IN


def _page_of(req: Request, sent: SentForm) -> str:
    """The page that a form was on; a question was on none that can be asked for."""
    with suppress(PageError):
        if back := sent.fields({}).get(BACK):
            return own_path(back[0])
    referrer = urlsplit(req.get_header("Referer") or "")
    is_ours = referrer.netloc == req.netloc
    return own_path(referrer._replace(scheme="", netloc="").geturl()) if is_ours else "/"
