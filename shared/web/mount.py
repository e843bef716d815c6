"""Pages on a Falcon ASGI app: cookies, forms, and the question before something is done.

Each site has a `Page`, a `Visit` and a `Site` of its own, derived from these.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from shared.config.settings import Settings
from shared.db.session import is_database_away
from shared.http.lanes import Lane, Lanes
from shared.http.mount import client_address
from shared.security.networks import network_of
from shared.web import answers, cookies, forms
from shared.web.answers import Render, write_view
from shared.web.arrivals import hides_cookies, lead_on
from shared.web.rendering import add_static
from shared.web.results import SURE, File, PageError, Question, Redirect, View
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
        form: the fields of a form, with every value of each.
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
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Any
    handler: Callable[..., Any]
    asks: Callable[..., Question | View] | None = None
    takes_password: bool = False
    asks_by_itself: bool = False

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
        asked = self.asks(*first, visit)
        if isinstance(asked, View):
            return asked
        return View("question.html", asked.about(seal(visit.form), visit.asked_for))

    def _is_sure(self, visit: Visit) -> bool:
        return self.asks is None or visit.field(SURE) == "yes"


@dataclass(slots=True)
class Arrived:
    """A request that a site may answer.

    Attributes:
        req: the request.
        own: the token of its session; empty where it names none.
        token: the same, or that of the browser's form where nobody is signed in.
        path: the variables of the path.
        query: the query string.
        sent: its form, unread.
        has_acted: whether something may have been changed; the site says so before.
    """

    req: Request
    own: str
    token: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    sent: forms.SentForm
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

    @abstractmethod
    def is_signed_in(self, own: str) -> bool:
        """Whether a token is of a session that has not ended; called in a thread."""

    @abstractmethod
    async def answer(self, page: PageT, here: Arrived) -> tuple[Result, str]:
        """What a page answers, and its HTML where it is to be shown."""

    def mount(self, app: falcon.asgi.App[Any, Any], pages: Iterable[PageT]) -> None:
        """Add pages to an app, which strips trailing slashes."""
        by_path: dict[str, list[PageT]] = defaultdict(list)
        for page in pages:
            by_path[page.path].append(page)
        for path, group in by_path.items():
            resource = type("Resource", (), {})()
            for page in group:
                setattr(resource, f"on_{page.method.lower()}", self._responder(page))
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
            sent = forms.SentForm()
            if page.method == "POST":
                # Somebody may have signed in since the page was made, in another tab.
                made_for = (own, unsigned) if page.needs == "nobody" else (token,)
                looked_up = None if page.needs == "nobody" else partial(self._looked_up, req, own)
                sent = await forms.read_form(req, *made_for, is_signed_in=looked_up)
            query = forms.read_query(req)
            forms.refuse_nul((*query.values(), *path.values()))
            if not token:
                token = new_token()
                cookies.put(resp, names.form, token, config)
            here = Arrived(req, own, token, path, query, sent)
            try:
                result, html = await self.answer(page, here)
            except Exception as error:
                if not here.has_acted or not is_database_away(error):
                    raise
                log.warning("database_away", route=req.uri_template, error=type(error).__name__)
                raise PageError(503, answers.DATABASE_LEFT) from None
            self._write(resp, result, html)

        return respond

    async def _looked_up(self, req: Request, own: str) -> bool:
        """Whether the session that a browser names is one: anybody may name one."""
        if not own:
            return False
        caller = network_of(client_address(req))
        return await self._lanes.ordinary.run(partial(self.is_signed_in, own), caller)

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


def shown(view: View, token: str, note: str, **who: Any) -> dict[str, Any]:
    """What the template of a view is given; `who` is signed in."""
    about = {"form_token": form_token(token), "note": note, "path": ""}
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
