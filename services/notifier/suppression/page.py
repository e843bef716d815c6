"""`/unsubscribe/`: a page with buttons for people, and one click for mail programs (RFC 8058).

A GET changes nothing, since scanners open the links of an email. No sign-in and no cookie: whoever
holds the token got the email, or was given it.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from urllib.parse import parse_qsl

import falcon
from falcon.asgi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from sqlalchemy.orm import Session

from services.notifier.suppression import leaving
from services.notifier.suppression.leaving import Standing
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import transaction
from shared.http.mount import read_body
from shared.languages.language import language
from shared.security.unsubscribe_tokens import InvalidTokenError, Leaver, unsubscribe_tokens

MAX_BODY_BYTES = 4_096
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
_ACTIONS: Mapping[str, Callable[[Session, Leaver], None]] = {
    "all": lambda session, leaver: leaving.leave(session, leaver, "all"),
    "order": lambda session, leaver: leaving.leave(session, leaver, "order"),
    "back": leaving.come_back,
}


class UnsubscribePage:
    """The page.

    Args:
        threads: where the database is asked.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def on_get(self, req: Request, resp: Response) -> None:
        """How things stand, and buttons."""
        leaver = _leaver(req)
        if leaver is None:
            _answer(resp, 404, None, "")
            return
        _answer(resp, 200, await self._run(leaver, None), "")

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        """Leave or come back; answered with the page, never by a redirect (RFC 8058, 3.2)."""
        leaver = _leaver(req)
        raw = await read_body(req, MAX_BODY_BYTES)
        if leaver is None:
            _answer(resp, 404, None, "")
            return
        fields = _fields(req.content_type or "", raw)
        wanted = "all" if fields == ONE_CLICK else fields.get("do", "") if len(fields) == 1 else ""
        if wanted not in _ACTIONS:
            _answer(resp, 400, await self._run(leaver, None), "")
            return
        _answer(resp, 200, await self._run(leaver, _ACTIONS[wanted]), wanted)

    async def _run(
        self, leaver: Leaver, action: Callable[[Session, Leaver], None] | None
    ) -> Standing:
        @within(ANSWER_SECONDS)
        def run() -> Standing:
            with transaction() as session:
                if action is not None:
                    action(session, leaver)
                return leaving.standing(session, leaver)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _leaver(req: Request) -> Leaver | None:
    token = req.get_param("token")
    try:
        return unsubscribe_tokens().read(token or "")
    except InvalidTokenError:
        return None


def _fields(content_type: str, raw: bytes) -> dict[str, str]:
    """The fields of a form in either encoding; a name that comes twice makes it none."""
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
        form = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + raw)
        pairs = [_part(part) for part in form.iter_parts() if isinstance(part, EmailMessage)]
    else:
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=8)
        except ValueError:
            return {}
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _part(part: EmailMessage) -> tuple[str, str]:
    name = part.get_param("name", header="content-disposition")
    value = part.get_payload(decode=True)
    return str(name), value.decode("ascii", "replace").strip() if isinstance(value, bytes) else ""


def _answer(resp: Response, status: int, standing: Standing | None, done: str) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_HTML
    resp.set_headers(_HEADERS)
    say = language(standing.language if standing else "")
    resp.data = _page().render(standing=standing, done=done, say=say).encode()


@cache
def _page() -> Template:
    environment = Environment(
        loader=PackageLoader("services.notifier"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("unsubscribe_page.html")
