"""Routes on a Falcon ASGI app: authentication, decoding, a transaction in a thread, errors."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, cast

import falcon.asgi
import msgspec
import structlog
from falcon.asgi import Request, Response

from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_away, is_used_up, transaction
from shared.http.bodies import read_body, read_unvouched
from shared.http.callers import bearer, client_address, traceparent
from shared.http.errors import ApiError, invalid, overloaded, unavailable
from shared.http.lanes import Lanes
from shared.http.metrics import measured
from shared.http.route import Answer, Call, Route, Throttles
from shared.http.standing import require_session
from shared.security.networks import network_of
from shared.telemetry import tracing
from shared.validation.reading import InvalidValueError, read, read_json

NOTHING_HERE = (
    "There is nothing at this path. It is compared letter by letter, with single slashes: those of "
    "the API are on /api/v1/docs/."
)
log = structlog.get_logger()
_encoder = msgspec.json.Encoder()


def mount(
    app: falcon.asgi.App[Any, Any],
    prefix: str,
    routes: Iterable[Route],
    lanes: Lanes,
    throttles: Throttles,
) -> None:
    """Add routes to an app.

    Args:
        app: strips trailing slashes, so that each path answers with and without one.
        prefix: what stands before every path, such as `/api/v1`.
        routes: what to add.
        lanes: where handlers run.
        throttles: asked before a throttled route is run.
    """
    by_path: dict[str, list[Route]] = defaultdict(list)
    for route in routes:
        by_path[route.path].append(route)
    for path, group in by_path.items():
        app.add_route(prefix + path.rstrip("/"), _resource(group, lanes, throttles))


def add_error_handlers(app: falcon.asgi.App[Any, Any]) -> None:
    """Make every error of the app, Falcon's own included, answer in the one shape."""

    async def on_api_error(_: Request, resp: Response, error: ApiError, __: Any) -> None:
        write_error(resp, error)

    async def on_http_error(req: Request, resp: Response, error: falcon.HTTPError, __: Any) -> None:
        status = error.status_code
        code = _FALCON_CODES.get(status, f"http_{status}")
        sentence = error.description or error.title or "The request cannot be answered"
        if isinstance(error, falcon.HTTPRouteNotFound):
            sentence = NOTHING_HERE
        elif isinstance(error, falcon.HTTPMethodNotAllowed):
            allowed = dict(error.headers or {})["Allow"]
            sentence = f"This path takes {allowed}, and not {req.method}."
        write_error(resp, ApiError(status, code, sentence, headers=dict(error.headers or {})))

    async def on_exception(req: Request, resp: Response, error: Exception, __: Any) -> None:
        if is_used_up(error):
            log.warning("connections_used_up", route=req.uri_template)
            write_error(resp, overloaded())
            return
        if is_database_away(error):
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            write_error(
                resp, unavailable("database_unavailable", "Try again shortly: storage is away.")
            )
            return
        log.error("unhandled_error", method=req.method, route=req.uri_template, exc_info=error)
        write_error(
            resp, ApiError(500, "internal_error", "Something broke on our side. It was logged.")
        )

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ApiError, on_api_error)


def write_error(resp: Response, error: ApiError) -> None:
    """Put an error into a response."""
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(error.body())
    # Else a cache may keep some for as long as it thinks right (RFC 9110, 15.1).
    resp.set_header("Cache-Control", "no-store")
    # RFC 8288, and `help` of the registry of link relations: where cause and cure are.
    resp.append_header("Link", f'</api/v1/docs/#code-{error.code}>; rel="help"')
    for name, value in error.headers.items():
        resp.set_header(name, value)


def _resource(routes: list[Route], lanes: Lanes, throttles: Throttles) -> object:
    resource: Any = type("Resource", (), {})()
    for route in routes:
        responder = measured(route, _responder(route, lanes, throttles))
        setattr(resource, f"on_{route.method.lower()}", responder)
        if route.method == "GET":  # RFC 9110, 9.3.2: the same without the body, which uvicorn drops
            resource.on_head = responder
    return resource


def _responder(route: Route, lanes: Lanes, throttles: Throttles) -> Any:
    body_decoder: msgspec.json.Decoder[Any] | None = (
        msgspec.json.Decoder(route.body) if route.body is not None else None
    )

    body_type = cast("type[msgspec.Struct] | None", route.body)
    # Every Struct calls a password so.
    needs_password = body_type is not None and any(
        field.name == "password" and field.required for field in msgspec.structs.fields(body_type)
    )

    async def respond(req: Request, resp: Response, **path: str) -> None:
        address = client_address(req)
        token = bearer(req) if route.bearer else None
        account_id = token.account_id if token else None
        caller = str(account_id) if account_id else network_of(address)
        # What there is no room for counts against nobody, and what is refused is not read.
        (lanes.passwords if needs_password else lanes.ordinary).require_room(caller)
        signed_in = (token.session_id or token.account_id) if token else None
        if refusal := throttles.refusal(route, path, address, signed_in):
            raise refusal
        # As `caller`: what nobody has vouched for counts for its network.
        read_raw = partial(read_body, sender=caller) if token else read_unvouched
        body = await _body(req, route, body_decoder, read_raw)
        # A proof of an address may be without one.
        has_password = getattr(body, "password", None) is not None
        lane = lanes.passwords if has_password else lanes.ordinary
        call = Call(
            account_id=account_id,
            body=body,
            query=_query(req, route),
            path=path,
            address=address,
            traceparent=traceparent(req),
            session_id=token.session_id if token else None,
            client=(req.get_header("User-Agent") or "")[:200],
        )

        @within(ANSWER_SECONDS)
        def run() -> Answer | ApiError:
            with tracing.under(call.traceparent), transaction() as session:
                if token is not None:
                    require_session(session, token)
                return route.handler(session, call)

        answer = await lane.run(run, caller)
        if isinstance(answer, ApiError):
            write_error(resp, answer)
            return
        resp.status = answer.status
        # Secrets and tokens are among the answers: no cache may keep any of them.
        resp.set_header("Cache-Control", "no-store")
        if answer.body is not None:
            resp.content_type = falcon.MEDIA_JSON
            resp.data = _encoder.encode(answer.body)

    return respond


async def _body(
    req: Request,
    route: Route,
    decoder: msgspec.json.Decoder[Any] | None,
    read_raw: Callable[[Request, int], Awaitable[bytes]],
) -> msgspec.Struct | None:
    if decoder is None or route.body is None:
        return None
    raw = await read_raw(req, route.max_body_bytes)
    if not raw.strip() and route.body_optional:
        raw = b"{}"
    try:
        body: msgspec.Struct = decoder.decode(raw)
    # Too deep for the decoder, or a number too long for Python, is the sender's mistake as well.
    except (ValueError, RecursionError, OverflowError):
        return _read_again(raw, route.body)
    return body


def _read_again(raw: bytes, type_: Any) -> msgspec.Struct:
    try:
        body: msgspec.Struct = read_json(raw, type_)
    except InvalidValueError as error:
        raise invalid("invalid_body", error) from None
    return body


def _query(req: Request, route: Route) -> msgspec.Struct | None:
    if route.query is None:
        return None
    given = {
        name: value[-1] if isinstance(value, list) else value for name, value in req.params.items()
    }
    try:
        return read(given, route.query, path="", strict=False)
    except InvalidValueError as error:
        raise invalid("invalid_query", error) from None


_FALCON_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
