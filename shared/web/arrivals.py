"""A browser that a link of another site has led here.

It does not show a `Strict` cookie then (RFC 6265bis, 8.8.2), and so looks like one in which nobody
is signed in. A page of our own that leads on to the same address has it show them.
"""

from urllib.parse import quote

from falcon.asgi import Request

from shared.web.results import View, own_path


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
