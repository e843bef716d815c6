"""What a request says: its query, its path, and forms that one of our own pages has sent."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from urllib.parse import parse_qs
from uuid import UUID

import falcon
from falcon.asgi import Request
from falcon.media import MultipartFormHandler
from falcon.uri import parse_query_string

from shared.http.bodies import Kept
from shared.http.errors import ApiError
from shared.web.results import PageError
from shared.web.tokens import is_form_token

MAX_FORM_BYTES = 131_072
"""Of a form that one is signed in for: the largest has two texts of 4,000 characters, each of up to
12 bytes as they are sent."""
MAX_LARGE_BYTES = 1_048_576
"""Of one with a file, a request or a message in it."""
MAX_STRANGERS_BYTES = 16_384
"""Of a form that nobody need be signed in for: the largest has an address and two passwords."""
MULTIPART = "multipart/form-data"
OUT_OF_DATE = "The form is out of date: go back, load the page anew and try again."


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file of a form: what the browser calls it, and what is in it."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SentForm:
    """A form as it came. To read a large one takes long, so that is for a thread.

    Attributes:
        body: of the request.
        kind: its `Content-Type`.
        tokens: of the browser's cookies, each of which the page may have been made for; empty
            where it has none.
    """

    body: bytes = b""
    kind: str = ""
    tokens: tuple[str, ...] = ()

    def fields(self, files: dict[str, SentFile] | None = None) -> Mapping[str, list[str]]:
        """The fields of a form that one of our pages sent.

        Args:
            files: takes the form's files by their fields, where a page takes any.

        Raises:
            PageError: 403, when it came from elsewhere; 400, when it cannot be read.
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
        given = form.pop("form_token", [""])[0]
        if not any(token and is_form_token(given, token) for token in self.tokens):
            raise PageError(403, OUT_OF_DATE)
        refuse_nul(chain.from_iterable(form.values()))
        return form


class Typed:
    """What was typed into a form, for the page that shows it again.

    Args:
        form: its fields; none where the page is shown for the first time.
    """

    def __init__(self, form: Mapping[str, list[str]]) -> None:
        self._form = form

    def __call__(self, name: str, default: object = "", **of: object) -> object:
        """A field, without the CRs of browsers (HTML, 4.10.21.5).

        Args:
            name: of the field.
            default: what is there where nothing was typed, or into another form.
            of: fields that tell a form from others of its page, and their values in it.
        """
        is_it = all(self._form.get(field) == [str(value)] for field, value in of.items())
        if not is_it or name not in self._form:
            return default
        return self._form[name][0].replace("\r\n", "\n")

    def has(self, name: str, value: str) -> bool:
        """Whether a field was sent with a value, of the several that it may have."""
        return value in self._form.get(name, ())


@asynccontextmanager
async def sent_form(
    req: Request, most: int, *tokens: str, signed_in: Callable[[], Awaitable[str]] | None
) -> AsyncIterator[SentForm]:
    """A form that one of our pages sent, kept until the context ends; what cannot be is not read.

    Where somebody has to be signed in and nobody is, it says no more than where to come back to: a
    large one is as good as empty, and is not kept.

    Args:
        req: the request.
        most: how many bytes it may have of somebody who is signed in.
        tokens: see `SentForm`.
        signed_in: who is, by an id; empty for nobody. None where nobody need be.

    Raises:
        PageError: 403, when it came from elsewhere.
        ApiError: as `Kept`.
    """
    # Every browser of today says where a request comes from (W3C, "Fetch Metadata").
    if req.get_header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise PageError(403, "The form was sent from another site.")
    if not any(tokens):
        raise PageError(403, OUT_OF_DATE)
    sender = await signed_in() if signed_in is not None else ""
    sent = SentForm()
    async with AsyncExitStack() as kept:
        try:
            body = await kept.enter_async_context(
                Kept(req, most if sender else MAX_STRANGERS_BYTES, sender)
            )
            sent = SentForm(body, req.content_type or "", tokens)
        except ApiError as error:
            is_for_nobody = signed_in is not None and not sender
            if not is_for_nobody or error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
        yield sent


def _read_parts(body: bytes, kind: str, files: dict[str, SentFile]) -> dict[str, list[str]]:
    """The fields of a form by RFC 7578; its files go into `files`."""
    form: dict[str, list[str]] = {}
    for part in MultipartFormHandler().deserialize(io.BytesIO(body), kind, len(body)):
        name, file_name = part.name or "", part.filename
        if file_name is None:
            form.setdefault(name, []).append(part.get_data().decode())
        else:
            files[name] = SentFile(file_name, part.get_data())
    return form


def read_query(text: str) -> dict[str, str]:
    """A query string; of a name that is given twice, the first."""
    return {
        name: value[0] if isinstance(value, list) else value
        for name, value in parse_query_string(text, keep_blank=True).items()
    }


def refuse_nul(texts: Iterable[str]) -> None:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        PageError: 400, when there is a NUL in it.
    """
    if "\0" in "".join(texts):
        raise PageError(400, "There is a NUL in it, which nothing here can hold.")


def uuid_of(text: str) -> UUID:
    """An id.

    Raises:
        PageError: 404, when it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise PageError(404, "There is no such page: that is no id.") from None
