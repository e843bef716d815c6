"""Reads queries, path variables, and forms, which must come from our own pages."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from http import HTTPStatus
from itertools import chain
from urllib.parse import parse_qs
from uuid import UUID

import falcon
from falcon.asgi import Request
from falcon.media import MultipartFormHandler
from falcon.uri import parse_query_string

from shared.http.bodies import CountedBody
from shared.http.errors import ApiError
from shared.languages import time_zones
from shared.web.results import PageError
from shared.web.tokens import is_form_token

MAX_FORM_BYTES = 131_072
"""Limit for a signed-in user's form: the largest has two texts of 4,000 characters, each encoded in
up to 12 bytes."""
MAX_LARGE_BYTES = 1_048_576
"""Limit for a form with a file, a request or a message."""
MAX_STRANGERS_BYTES = 16_384
"""Limit without a sign-in: the largest form has an address and two passwords."""
MULTIPART = "multipart/form-data"
OUT_OF_DATE = "The form is out of date: go back, load the page anew and try again."


def beginning(day: str, zone: str, days: int = 0) -> datetime | None:
    """Return the beginning in UTC of a form's day in the user's time zone.

    Args:
        day: value of a date field (HTML, 4.10.5.1.7); empty for none.
        zone: IANA name of the user's time zone; UTC if unknown.
        days: number of days to add.

    Returns:
        None for an empty day, or one out of range.

    Raises:
        PageError: 400, if it is not a day.
    """
    if not day:
        return None
    try:
        first = date.fromisoformat(day) + timedelta(days=days)
        return datetime.combine(first, time.min, time_zones.zone(zone)).astimezone(UTC)
    except OverflowError:
        return None
    except ValueError:
        raise PageError(400, "A day is written like 2026-11-30.") from None


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file of a form: its name and content."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SentForm:
    """An undecoded form. Decoding a large one takes long, so it is done in a thread.

    Attributes:
        body: of the request.
        kind: its `Content-Type`.
        tokens: of the browser's cookies, for any of which the form may have been rendered.
    """

    body: bytes = b""
    kind: str = ""
    tokens: tuple[str, ...] = ()

    def fields(self, files: dict[str, SentFile] | None = None) -> Mapping[str, list[str]]:
        """Return the fields of the form, after checking its token.

        Args:
            files: to which the form's files are added by field; None to refuse files.

        Raises:
            PageError: 403, if its token is missing or wrong; 400, if it cannot be decoded.
        """
        if not any(self.tokens):
            raise PageError(403, OUT_OF_DATE)
        try:
            if files is not None and self.kind.startswith(MULTIPART):
                form = _read_parts(self.body, self.kind, files)
            else:
                form = parse_qs(self.body.decode(), keep_blank_values=True, max_num_fields=2_000)
        except (ValueError, falcon.HTTPError):
            raise PageError(400, "The form cannot be read.") from None
        sent = form.pop("form_token", [""])[0]
        if not any(token and is_form_token(sent, token) for token in self.tokens):
            raise PageError(403, OUT_OF_DATE)
        refuse_nul(chain.from_iterable(form.values()))
        return form


class Typed:
    """The typed values of a form, for the page that shows it again.

    Args:
        form: its fields; empty if the page is shown for the first time.
    """

    def __init__(self, form: Mapping[str, list[str]]) -> None:
        self._form = form

    def __call__(self, name: str, default: object = "", **of: object) -> object:
        """Return a field's value, without the CRs of browsers (HTML, 4.10.21.5).

        Args:
            name: of the field.
            default: returned if the field was not submitted, or in another form.
            of: fields, with values, that distinguish the form from others of its page.
        """
        is_it = all(self._form.get(field) == [str(value)] for field, value in of.items())
        if not is_it or name not in self._form:
            return default
        return self._form[name][0].replace("\r\n", "\n")

    def has(self, name: str, value: str) -> bool:
        """Return whether a value is among those submitted for a field."""
        return value in self._form.get(name, ())


@asynccontextmanager
async def sent_form(
    req: Request, most: int, *tokens: str, signed_in: Callable[[], Awaitable[str]] | None
) -> AsyncIterator[SentForm]:
    """Read a form of one of our pages; its bytes count until the context ends (see `CountedBody`).

    If a sign-in is required and missing, the form only serves to find its page; a large one is
    replaced by an empty one.

    Args:
        req: the request.
        most: bytes allowed for a signed-in user.
        tokens: see `SentForm`.
        signed_in: returns the id of the signed-in user, or an empty text. None if no sign-in is
            required.

    Raises:
        PageError: 403, if another site sent it.
        ApiError: see `CountedBody`.
    """
    # All current browsers send this header (W3C, "Fetch Metadata").
    if req.get_header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise PageError(403, "The form was sent from another site.")
    if not any(tokens):
        raise PageError(403, OUT_OF_DATE)
    sender = await signed_in() if signed_in is not None else ""
    sent = SentForm()
    async with AsyncExitStack() as kept:
        try:
            body = await kept.enter_async_context(
                CountedBody(req, most if sender else MAX_STRANGERS_BYTES, sender)
            )
            sent = SentForm(body, req.content_type or "", tokens)
        except ApiError as error:
            lacks_sign_in = signed_in is not None and not sender
            if not lacks_sign_in or error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
        yield sent


def _read_parts(body: bytes, kind: str, files: dict[str, SentFile]) -> dict[str, list[str]]:
    """Return the fields of a multipart form (RFC 7578); add its files to `files`."""
    form: dict[str, list[str]] = {}
    for part in MultipartFormHandler().deserialize(io.BytesIO(body), kind, len(body)):
        name, file_name = part.name or "", part.filename
        if file_name is None:
            form.setdefault(name, []).append(part.get_data().decode())
        else:
            files[name] = SentFile(file_name, part.get_data())
    return form


def read_query(text: str) -> dict[str, str]:
    """Parse a query string; the first value of a repeated name counts."""
    return {
        name: value[0] if isinstance(value, list) else value
        for name, value in parse_query_string(text, keep_blank=True).items()
    }


def refuse_nul(texts: Iterable[str]) -> None:
    """Refuse NUL characters, which PostgreSQL cannot store.

    Raises:
        PageError: 400, if there is one.
    """
    if "\0" in "".join(texts):
        raise PageError(400, "It contains a NUL character, which cannot be stored.")


def uuid_of(text: str) -> UUID:
    """Parse an id of a path.

    Raises:
        PageError: 404, if it is not a UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise PageError(404, "There is no such page: the id is invalid.") from None
