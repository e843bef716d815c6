"""Pages on a Falcon ASGI app: cookies, forms, and the question before something is done.

Each site has a `Page`, a `Visit` and a `Site` of its own, derived from these.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import falcon.asgi
import structlog
from falcon.asgi import Request, Response
from falcon.routing import CompiledRouter

from shared.config.settings import Settings
from shared.db.session import is_database_away
from shared.http.callers import client_address
from shared.http.lanes import Lane, Lanes
from shared.security.networks import network_of
from shared.web import answers, cookies, forms
from shared.web.answers import Render, write_view
from shared.web.arrivals import hides_cookies, lead_on
from shared.web.rendering import add_static
from shared.web.results import (
    BACK,
    SURE,
    Again,
    File,
    PageError,
    Question,
    Redirect,
    View,
    own_path,
)
from shared.web.tokens import form_token, new_token

SIGN_IN = "/sign-in"
Result = View | Redirect | File
Form = Mapping[str, list[str]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, checked.

    Attributes:
        page: what is asked for.
        path: the variables of the path, as text.
        query: the query string; of a name that is given twice, the first.
        form: the fields of a form, with every value of each; of one that is shown again too.
        asked_for: the path as it was asked for.
        mark: by what the browser is known to whom it has signed in; empty where it is to none.
    """

    page: "Page"
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Form
    asked_for: str
    mark: str

    def field(self, name: str) -> str:
        """The first value of a field, without blanks around it; empty when it was not filled in."""
        return self.form.get(name, [""])[0].strip()

    def password(self, name: str = "password") -> str:
        """The field of a password, as it was typed: blanks may be part of it.

        Raises:
            RuntimeError: the page was not declared with `takes_password=True`.
        """
        if not self.page.takes_password:
            raise RuntimeError("this page has no password: declare it with takes_password=True")
        return self.form.get(name, [""])[0]

    def lines(self, name: str) -> str:
        """A field of several lines, without the CRs of browsers (HTML, 4.10.21.5)."""
        return self.form.get(name, [""])[0].replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Page:
    """One method on one path.

    Attributes:
        method: GET shows, POST changes something.
        path: as Falcon writes it, such as `/orders/{order_id}`.
        needs: whom it asks for; `nobody`: anybody at all.
        handler: runs in a thread.
        asks: for what changes something: what is asked in a page of its own before the handler
            runs; or a page that says why it cannot be. That page has no field, and Enter in a form
            sends it to a question at most.
        takes_password: whether its form may have a password, for which others wait in a lane of
            their own.
        asks_by_itself: whether a page that is open asks for it, and nobody.
        max_form_bytes: of its form, beyond which it is answered 413.
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Any
    handler: Callable[..., Any]
    asks: Callable[..., Question | View] | None = None
    takes_password: bool = False
    asks_by_itself: bool = False
    max_form_bytes: int = forms.MAX_FORM_BYTES

    def acts(self, visit: Visit) -> bool:
        """Whether it changes something now, and does not ask first."""
        return self.method == "POST" and self._is_sure(visit)

    def answer(
        self, visit: Visit, *first: Any, seal: Callable[[Form], Form] = lambda form: form
    ) -> Any:
        """What it does; or first the question whether it shall.

        Args:
            visit: the request.
            first: what handlers take before it.
            seal: makes of a form's fields what the question may hold of them.
        """
        if self._is_sure(visit) or self.asks is None:
            return self.handler(*first, visit)
        if "no" in visit.form.get(SURE, ()):
            return Again(own_path(visit.field(BACK)), typed=visit.form)
        try:
            asked = self.asks(*first, visit)
        except PageError as error:
            back = visit.field(BACK)
            if error.status not in (400, 409) or not back:
                raise
            return Again(
                own_path(back), typed=visit.form, refused=error.sentence, status=error.status
            )
        if isinstance(asked, View):
            return asked
        return View("question.html", asked.about(seal(visit.form), visit.asked_for))

    def _is_sure(self, visit: Visit) -> bool:
        return self.asks is None or visit.form.get(SURE) == ["yes"]


@dataclass(slots=True)
class Arrived:
    """A request that a site may answer.

    Attributes:
        req: the request.
        own: the token of its session; empty where it names none.
        token: the same, or that of the browser's form where nobody is signed in.
        asked_for: the path as it was asked for.
        path: the variables of the path.
        query: the query string.
        sent: its form, unread.
        typed: what was typed into a form that is shown again.
        refused: why that was not taken, where it was refused.
        has_acted: whether something may have been changed; the site says so before.
    """

    req: Request
    own: str
    token: str
    asked_for: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    sent: forms.SentForm
    typed: Form = field(default_factory=dict)
    refused: str = ""
    has_acted: bool = False


class Names(NamedTuple):
    """What the cookies of a site are called.

    `form` is that of a browser in which nobody is signed in: the sign-in form has a token too;
    `mark` that of one in which somebody has signed in before.
    """

    session: str
    form: str
    mark: str


PageT = TypeVar("PageT", bound=Page)


class Site(ABC, Generic[PageT]):
    """What answers the pages of a site.

    Args:
        config: the settings.
        lanes: where handlers run.
        names: of its cookies.
        render: makes HTML of its templates.
    """

    def __init__(self, config: Settings, lanes: Lanes, names: Names, render: Render) -> None:
        self._config = config
        self._lanes = lanes
        self._names = names
        self._render = render
        self._shown = CompiledRouter()

    @abstractmethod
    def signed_in(self, own: str) -> str:
        """The id of whose session a token is; empty where it has ended. Called in a thread."""

    @abstractmethod
    async def answer(self, page: PageT, here: Arrived) -> tuple[Result, str]:
        """What a page answers, and its HTML where it is to be shown."""

    def with_again(
        self, run: Callable[[PageT, Arrived], tuple[Result, str]], page: PageT, here: Arrived
    ) -> tuple[Result, str]:
        """What a page answers; of one that leads back to a form, what the form's page answers.

        Args:
            run: answers a request for a page.
            page: what is asked for.
            here: the request.
        """
        result, html = run(page, here)
        if not isinstance(result, Again):
            return result, html
        if (shown := self._page_at(result.to)) is None:
            if result.refused:
                raise PageError(result.status, result.refused)
            return result, html
        asked_for, page, path, query = shown
        again = replace(
            here,
            asked_for=asked_for,
            path=path,
            query=query,
            sent=forms.SentForm(),
            typed=result.typed,
            refused=result.refused,
        )
        status = result.status
        result, html = run(page, again)
        return (replace(result, status=status) if isinstance(result, View) else result), html

    def shows(self, to: str) -> str:
        """A path of ours to go on to; the first page where nothing is shown there."""
        return to if self._page_at(to) else "/"

    def _page_at(self, to: str) -> tuple[str, PageT, dict[str, str], dict[str, str]] | None:
        at = urlsplit(to)
        asked_for = unquote(at.path)
        found = self._shown.find(asked_for)
        if found is None:
            return None
        page: Any = found[0]
        query = forms.read_query(at.query)
        forms.refuse_nul((asked_for, *query.values()))
        return asked_for, page, found[2], query

    def mount(self, app: falcon.asgi.App[Any, Any], pages: Iterable[PageT]) -> None:
        """Add pages to an app, which strips trailing slashes."""
        by_path: dict[str, list[PageT]] = defaultdict(list)
        for page in pages:
            by_path[page.path].append(page)
        for path, group in by_path.items():
            resource = type("Resource", (), {})()
            for page in group:
                setattr(resource, f"on_{page.method.lower()}", self._responder(page))
                if page.method == "GET" and not page.asks_by_itself:
                    self._shown.add_route(path, page)
            app.add_route(path, resource)

    def lane(self, page: PageT) -> Lane:
        """Where a page's handler runs."""
        return self._lanes.passwords if page.takes_password else self._lanes.ordinary

    def mark(self, req: Request) -> str:
        """By what a browser is known to whom it has signed in."""
        return cookies.get(req, self._names.mark, self._config)

    def _responder(self, page: PageT) -> Any:
        names, config = self._names, self._config

        async def respond(req: Request, resp: Response, **path: str) -> None:
            own = cookies.get(req, names.session, config)
            unsigned = cookies.get(req, names.form, config)
            token = own or unsigned
            if page.method == "GET" and not token and hides_cookies(req):
                view = lead_on(req)
                write_view(resp, view, self._render(view.template, dict(view.about)))
                return
            if page.method == "GET":
                await self._respond(page, req, resp, path, own, token, forms.SentForm())
                return
            # Somebody may have signed in since the page was made, in another tab.
            made_for = (own, unsigned) if page.needs == "nobody" else (token,)
            looked_up = None if page.needs == "nobody" else partial(self._looked_up, req, own)
            sent_form = forms.sent_form(req, page.max_form_bytes, *made_for, signed_in=looked_up)
            async with sent_form as sent:
                await self._respond(page, req, resp, path, own, token, sent)

        return respond

    async def _respond(
        self,
        page: PageT,
        req: Request,
        resp: Response,
        path: Mapping[str, str],
        own: str,
        token: str,
        sent: forms.SentForm,
    ) -> None:
        query = forms.read_query(req.query_string)
        forms.refuse_nul((*query.values(), *path.values()))
        if not token:
            token = new_token()
            cookies.put(resp, self._names.form, token, self._config)
        here = Arrived(req, own, token, req.path, path, query, sent)
        try:
            result, html = await self.answer(page, here)
        except Exception as error:
            if not here.has_acted or not is_database_away(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            raise PageError(503, answers.DATABASE_LEFT) from None
        self._write(resp, result, html)

    async def _looked_up(self, req: Request, own: str) -> str:
        """Whose the session is that a browser names: anybody may name one."""
        if not own:
            return ""
        caller = network_of(client_address(req))
        return await self._lanes.ordinary.run(partial(self.signed_in, own), caller)

    def _write(self, resp: Response, result: Result, html: str) -> None:
        names, config = self._names, self._config
        if isinstance(result, View):
            write_view(resp, result, html)
        elif isinstance(result, Redirect):
            resp.status, resp.location = falcon.HTTP_303, result.to
            if result.mark:
                cookies.put(resp, names.mark, result.mark, config, max_age=cookies.MARK_SECONDS)
            if result.token:
                cookies.put(resp, names.session, result.token, config)
            elif result.token is not None:
                cookies.forget(resp, names.session, config)
        else:
            resp.content_type, resp.downloadable_as = result.content_type, result.name
            resp.data = result.content


def shown(
    view: View, token: str, note: str, form: Form, *, refused: str = "", **who: Any
) -> dict[str, Any]:
    """What the template of a view is given; `form` was typed in, `who` is signed in."""
    about = {
        "form_token": form_token(token),
        "note": note,
        "path": "",
        "refused": refused,
        "typed": forms.Typed(form),
    }
    return about | who | dict(view.about)


def make_app(parts: Any, render: Render, static: Path) -> falcon.asgi.App[Any, Any]:
    """An app for pages, with `GET /healthz` and `GET /readyz`; errors are pages too.

    Args:
        parts: begin with the process and end with it (`process_startup`, `process_shutdown`), and
            say what is wrong with it (`wrong`).
        render: makes HTML of the site's templates.
        static: the site's own static files.
    """
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[answers.Guard(), parts])
    app.req_options.strip_url_path_trailing_slash = True
    answers.add_error_handlers(app, render)
    add_static(app, static)
    app.add_route("/healthz", answers.Healthz())
    app.add_route("/readyz", answers.Readyz(parts.wrong))
    return app
