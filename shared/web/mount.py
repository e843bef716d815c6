"""Mounts pages on a Falcon ASGI app: cookies, forms, and confirmation questions before actions.

Each site derives its own `Page`, `Visit` and `Site`.
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
from shared.db.session import is_database_unavailable
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
    """A validated request for a page.

    Attributes:
        page: the requested page.
        path: the path variables, as text.
        query: the query parameters; the first value of a repeated name.
        form: the fields of the submitted form, or of one that is shown again, with all values.
        asked_for: the requested path.
        mark: the token of the device cookie; empty if there is none.
    """

    page: "Page"
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Form
    asked_for: str
    mark: str

    def field(self, name: str) -> str:
        """Return the first value of a field, without surrounding blanks; empty if missing."""
        return self.form.get(name, [""])[0].strip()

    def password(self, name: str = "password") -> str:
        """Return a password field unmodified: blanks may be part of it.

        Raises:
            RuntimeError: the page was not declared with `takes_password=True`.
        """
        if not self.page.takes_password:
            raise RuntimeError("this page has no password: declare it with takes_password=True")
        return self.form.get(name, [""])[0]

    def lines(self, name: str) -> str:
        """Return a field of several lines, without the CRs of browsers (HTML, 4.10.21.5)."""
        return self.form.get(name, [""])[0].replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Page:
    """One method of one path.

    Attributes:
        method: GET shows, POST changes something.
        path: a Falcon template, such as `/orders/{order_id}`.
        needs: the required sign-in or right; `nobody` for none.
        handler: runs in a thread.
        asks: for a POST, returns the question that a separate page asks before the handler runs, or
            a page that says why it cannot be done. So pressing Enter in a form leads to a question
            at most.
        takes_password: whether its form may have a password, so that it runs in the password lane.
        asks_by_itself: whether it is requested only by scripts of an open page.
        max_form_bytes: of its form, beyond which the response is 413.
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
        """Return whether the request runs the action, and is not asked to confirm it first."""
        return self.method == "POST" and self._is_sure(visit)

    def answer(
        self, visit: Visit, *first: Any, seal: Callable[[Form], Form] = lambda form: form
    ) -> Any:
        """Run the handler, or return the question that must be confirmed first.

        Args:
            visit: the request.
            first: leading arguments of the handlers.
            seal: converts a form's fields to those that the question page may contain.
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
    """A request as it is passed to a site.

    Attributes:
        req: the request.
        own: the token of the session cookie; empty if there is none.
        token: the same, or that of the form cookie without a session.
        asked_for: the requested path.
        path: the path variables.
        query: the query parameters.
        sent: its undecoded form.
        typed: the fields of a form that is shown again.
        refused: why that form was refused; empty if it was not.
        has_acted: whether something may have been changed; set by the site before an action.
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
    """Names of a site's cookies.

    `form` has the token of forms without a session, such as the sign-in form; `mark` is the device
    cookie of browsers that have signed in before.
    """

    session: str
    form: str
    mark: str


PageT = TypeVar("PageT", bound=Page)


class Site(ABC, Generic[PageT]):
    """The pages of a site.

    Args:
        config: the settings.
        lanes: thread pools of the handlers.
        names: of its cookies.
        render: renders its templates.
    """

    def __init__(self, config: Settings, lanes: Lanes, names: Names, render: Render) -> None:
        self._config = config
        self._lanes = lanes
        self._names = names
        self._render = render
        self._shown = CompiledRouter()

    @abstractmethod
    def signed_in(self, own: str) -> str:
        """Return the id of a session's user; empty if it has ended. Called in a thread."""

    @abstractmethod
    async def answer(self, page: PageT, here: Arrived) -> tuple[Result, str]:
        """Return the result of a page, and its HTML if it is a view."""

    def with_again(
        self, run: Callable[[PageT, Arrived], tuple[Result, str]], page: PageT, here: Arrived
    ) -> tuple[Result, str]:
        """Run a page; if its result is `Again`, run the page of the form instead.

        Args:
            run: runs a page for a request.
            page: the requested page.
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
        """Return a path if a page can be shown there, else `/`."""
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
        """Return the thread pool of a page's handler."""
        return self._lanes.passwords if page.takes_password else self._lanes.ordinary

    def mark(self, req: Request) -> str:
        """Return the token of the device cookie; empty if there is none."""
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
            # The user may have signed in in another tab since the form was rendered.
            made_for = (own, unsigned) if page.needs == "nobody" else (token,)
            signed_in = None if page.needs == "nobody" else partial(self._signed_in, req, own)
            sent_form = forms.sent_form(req, page.max_form_bytes, *made_for, signed_in=signed_in)
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
            if not here.has_acted or not is_database_unavailable(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            raise PageError(503, answers.DATABASE_LEFT) from None
        self._write(resp, result, html)

    async def _signed_in(self, req: Request, own: str) -> str:
        """Look up the user of a session token; it is unverified, so the client's network counts."""
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
    """Return the variables of a view's template.

    Args:
        view: the view.
        token: of the browser, for its forms.
        note: shown once.
        form: the typed fields.
        refused: why the form was refused.
        **who: variables on the signed-in user.
    """
    about = {
        "form_token": form_token(token),
        "note": note,
        "path": "",
        "refused": refused,
        "typed": forms.Typed(form),
    }
    return about | who | dict(view.about)


def make_app(parts: Any, render: Render, static: Path) -> falcon.asgi.App[Any, Any]:
    """Return an app for pages, with error pages, `GET /healthz` and `GET /readyz`.

    Args:
        parts: middleware with `process_startup` and `process_shutdown`; its `wrong` returns the
            problem of the process, or an empty text.
        render: renders the site's templates.
        static: folder of the site's static files.
    """
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[answers.Guard(), parts])
    app.req_options.strip_url_path_trailing_slash = True
    answers.add_error_handlers(app, render)
    add_static(app, static)
    app.add_route("/healthz", answers.Healthz())
    app.add_route("/readyz", answers.Readyz(parts.wrong))
    return app
