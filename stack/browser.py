"""A browser without scripts: it keeps cookies, follows links and sends the forms of its page."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

SECONDS = 60.0
_EMPTY = {
    "input",
    "link",
    "meta",
    "br",
    "img",
    "hr",
}  # of HTML's void elements (13.1.2) those we use
File = tuple[str, bytes]
"""A file's name, and what is in it."""


class NoFormError(Exception):
    """The page has no form that goes there."""


class Browser:
    """One person's browser at one site.

    Args:
        url: of the site.
        headers: of each request.
    """

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(
            base_url=url, follow_redirects=True, timeout=SECONDS, trust_env=False, headers=headers
        )
        self.page = ""
        self.status = 0

    def get(self, path: str) -> str:
        """Open a page; returns it."""
        return self._took(self.http.get(path))

    def send(self, action: str, files: dict[str, File] | None = None, **fields: str) -> str:
        """Send the form of this page that goes to `action`, with its hidden fields.

        Args:
            action: where it goes, as the page has it.
            files: by field, what is chosen in it.
            fields: what is filled in.

        Returns:
            The page that comes of it.

        Raises:
            NoFormError: see there.
        """
        hidden = next((form for to, form in _read(self.page).forms if to == action), None)
        if hidden is None:
            raise NoFormError(f"no form goes to {action} in {self.page}")
        return self._took(self.http.post(action, data=hidden | fields, files=files))

    def texts(self, tag: str) -> list[str]:
        """What the elements of a name say, such as `h1`, in the page's order."""
        said = (texts for name, texts in _read(self.page).said if name == tag)
        return [" ".join(" ".join(texts).split()) for texts in said]

    def _took(self, answer: httpx.Response) -> str:
        self.page, self.status = answer.text, answer.status_code
        return self.page


@dataclass
class _Reader(HTMLParser):
    """A page, read.

    Attributes:
        forms: of each that is posted where it goes, and its hidden fields.
        said: each element's name, and the texts in it.
    """

    forms: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    said: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            to = given.get("action") if given.get("method") == "post" else None
            self.forms.append((to or "", {}))
        elif tag == "input" and given.get("type") == "hidden" and self.forms:
            self.forms[-1][1][given.get("name") or ""] = given.get("value") or ""
        if tag not in _EMPTY:
            element: tuple[str, list[str]] = (tag, [])
            self.said.append(element)
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if any(tag == name for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        for _, said in self._open:
            said.append(data)


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader
