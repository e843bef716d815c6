"""`/unsubscribe/`: a page with buttons for people, and one click for mail programs (RFC 8058).

A GET changes nothing, since scanners open the links of emails. There is no sign-in and no cookie:
the token was sent to the customer. An order's link, which is shared, may end the emails about that
order only.
"""

from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from urllib.parse import parse_qsl

import falcon
import structlog
from falcon.asgi import Request, Response
from jinja2 import Template
from sqlalchemy.orm import Session

from services.notifier.suppression import leaving
from services.notifier.suppression.leaving import Standing
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_unavailable, is_pool_exhausted, transaction
from shared.http.bodies import read_unvouched
from shared.http.callers import client_address
from shared.http.errors import ApiError
from shared.http.lanes import Lane
from shared.languages.language import language
from shared.security import tracking
from shared.security.networks import network_of
from shared.security.unsubscribe_tokens import (
    PATH,
    InvalidTokenError,
    Subscriber,
    unsubscribe_tokens,
)
from shared.web.browsers import preferred_language
from shared.web.rendering import STATIC, environment

MAX_BODY_BYTES = 4_096
AGAIN_SECONDS = 60
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # The token is in the address of the page.
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
log = structlog.get_logger()

Asked = Subscriber | tracking.Link
"""The requester: the token of an email, or the link to an order."""
_ACTIONS: Mapping[str, Callable[[Session, Subscriber], None]] = {
    "all": lambda session, leaver: leaving.leave(session, leaver, "all"),
    "order": lambda session, leaver: leaving.leave(session, leaver, "order"),
    "back": leaving.come_back,
}
_BY_LINK = ("order",)


class UnsubscribePage:
    """The page.

    Args:
        lane: runs the database work.
        count: counts a request by its order, or by its network for an invalid link; returns an
            error if there were too many.
    """

    def __init__(self, lane: Lane, count: Callable[[str], ApiError | None]) -> None:
        self._lane = lane
        self._count = count

    async def on_get(self, req: Request, resp: Response) -> None:
        """Show the subscription, and buttons."""
        asked = _asked(req)
        if self._is_counted(req, resp, asked):
            await self._answered(req, resp, 200, asked, "")

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        """Unsubscribe or subscribe again; answers with the page, not a redirect (RFC 8058, 3.2)."""
        asked = _asked(req)
        if not self._is_counted(req, resp, asked):
            return
        found = fields(req.content_type or "", await read_unvouched(req, MAX_BODY_BYTES))
        may = _BY_LINK if isinstance(asked, tracking.Link) else tuple(_ACTIONS)
        wanted = may[0] if found == ONE_CLICK else found.get("do", "") if len(found) == 1 else ""
        if wanted not in may:
            await self._answered(req, resp, 400, asked, "")
            return
        await self._answered(req, resp, 200, asked, wanted)

    def _is_counted(self, req: Request, resp: Response, asked: Asked | None) -> bool:
        """Count a request before its body is read; False if it was refused."""
        refusal = self._count(f"{PATH} {_counted_by(asked) or network_of(client_address(req))}")
        if refusal:
            resp.set_headers(refusal.headers)
            _answer(req, resp, refusal.status, None, "")
        return refusal is None

    async def _answered(
        self, req: Request, resp: Response, status: int, asked: Asked | None, wanted: str
    ) -> None:
        try:
            standing = await self._run(asked, wanted, network_of(client_address(req)))
        except Exception as error:
            is_full = isinstance(error, ApiError)  # too many requests wait
            if not (is_full or is_pool_exhausted(error) or is_database_unavailable(error)):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            resp.set_header("Retry-After", str(AGAIN_SECONDS))
            _answer(req, resp, 503, None, wanted)
            return
        _answer(req, resp, status if standing else 404, standing, wanted)

    async def _run(self, asked: Asked | None, wanted: str, network: str) -> Standing | None:
        """Do the requested action, if any; None if the requester is unknown."""

        @within(ANSWER_SECONDS)
        def run() -> Standing | None:
            with transaction() as session:
                if isinstance(asked, tracking.Link):
                    leaver = leaving.by_link(session, asked)
                else:
                    leaver = asked
                if leaver is None:
                    return None
                if wanted:
                    _ACTIONS[wanted](session, leaver)
                return leaving.standing(session, leaver, this_order_alone=leaver is not asked)

        return await self._lane.run(run, network)


def _counted_by(asked: Asked | None) -> str | None:
    if isinstance(asked, tracking.Link):
        return f"{asked.order_id} {asked.number}"
    return str(asked.order_id) if asked else None


def _asked(req: Request) -> Asked | None:
    link = req.get_param("link")
    try:
        if link is not None:
            return tracking.link_of(link)
        return unsubscribe_tokens().read(req.get_param("token") or "")
    except (InvalidTokenError, tracking.InvalidLinkError):
        return None


def fields(content_type: str, raw: bytes) -> dict[str, str]:
    """Return the fields of a form in either encoding; none for an invalid form or a repeated name.

    Args:
        content_type: the header.
        raw: the body.
    """
    try:
        pairs = _pairs(content_type, raw)
    except (ValueError, LookupError, AttributeError, TypeError):
        # The standard library's header parser raises these for malformed headers.
        return {}
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _pairs(content_type: str, raw: bytes) -> list[tuple[str, str]]:
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    form = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + raw)
    return [_part(part) for part in form.iter_parts() if isinstance(part, EmailMessage)]


def _part(part: EmailMessage) -> tuple[str, str]:
    name = part.get_param("name", header="content-disposition")
    value = part.get_payload(decode=True)
    return str(name), value.decode("ascii", "replace").strip() if isinstance(value, bytes) else ""


def _answer(
    req: Request, resp: Response, status: int, standing: Standing | None, done: str
) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_HTML
    resp.set_headers(_HEADERS)
    preferred = preferred_language(req.get_header("Accept-Language") or "")
    say = language(standing.language if standing else preferred)
    why = "" if standing else "away" if status in (429, 503) else "none"
    resp.data = _page().render(standing=standing, done=done, say=say, why=why).encode()


@cache
def _page() -> Template:
    return environment("services.notifier", STATIC).get_template("unsubscribe_page.html")
