"""Mounts routes on a Falcon ASGI app: authentication, decoding, transactions, errors."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, cast

import falcon.asgi
import msgspec
import structlog
from falcon.asgi import Request, Response

from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_unavailable, is_pool_exhausted, transaction
from shared.http.bodies import read_body, read_unvouched
from shared.http.callers import bearer, client_address, traceparent
from shared.http.errors import DATABASE_UNAVAILABLE, ApiError, invalid, overloaded, unavailable
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
        app: strips trailing slashes, so that each path is valid with and without one.
        prefix: of all paths, such as `/api/v1`.
        routes: to add.
        lanes: thread pools of the handlers.
        throttles: called before a bounded route runs.
    """
    by_path: dict[str, list[Route]] = defaultdict(list)
    for route in routes:
        by_path[route.path].append(route)
    for path, group in by_path.items():
        app.add_route(prefix + path.rstrip("/"), _resource(group, lanes, throttles))


def add_error_handlers(app: falcon.asgi.App[Any, Any]) -> None:
    """Convert all errors of the app, including Falcon's own, to `ApiError` responses."""

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
        write_error(resp, failure(req, error))

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ApiError, on_api_error)


def failure(req: Request, error: Exception) -> ApiError:
    """Log an unexpected exception of a handler, and return the error to respond with."""
    if is_pool_exhausted(error):
        log.warning("connections_used_up", route=req.uri_template)
        return overloaded()
    if is_database_unavailable(error):
        log.warning("database_away", route=req.uri_template, error=type(error).__name__)
        return unavailable(*DATABASE_UNAVAILABLE[1:])
    log.error("unhandled_error", method=req.method, route=req.uri_template, exc_info=error)
    return ApiError(500, "internal_error", "Something broke on our side. It was logged.")


def write_error(resp: Response, error: ApiError) -> None:
    """Write an error to a response."""
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(error.body())
    # Otherwise some statuses are heuristically cacheable (RFC 9110, 15.1).
    resp.set_header("Cache-Control", "no-store")
    # RFC 8288 with the registered relation `help`: the documentation of the code.
    resp.append_header("Link", f'</api/v1/docs/#code-{error.code}>; rel="help"')
    for name, value in error.headers.items():
        resp.set_header(name, value)


def _resource(routes: list[Route], lanes: Lanes, throttles: Throttles) -> object:
    resource: Any = type("Resource", (), {})()
    for route in routes:
        responder = measured(route, _responder(route, lanes, throttles))
        setattr(resource, f"on_{route.method.lower()}", responder)
        if route.method == "GET":  # uvicorn drops the body of a response to HEAD (RFC 9110, 9.3.2)
            resource.on_head = responder
    return resource


def _responder(route: Route, lanes: Lanes, throttles: Throttles) -> Any:
    body_decoder: msgspec.json.Decoder[Any] | None = (
        msgspec.json.Decoder(route.body) if route.body is not None else None
    )

    body_type = cast("type[msgspec.Struct] | None", route.body)
    # By convention, all Structs name a password so.
    needs_password = body_type is not None and any(
        field.name == "password" and field.required for field in msgspec.structs.fields(body_type)
    )

    async def respond(req: Request, resp: Response, **path: str) -> None:
        address = client_address(req)
        token = bearer(req) if route.bearer else None
        account_id = token.account_id if token else None
        caller = str(account_id) if account_id else network_of(address)
        # Room is checked first, so that a 503 uses up no attempt; bodies of refused requests are
        # not read.
        (lanes.passwords if needs_password else lanes.ordinary).require_room(caller)
        signed_in = (token.session_id or token.account_id) if token else None
        if refusal := throttles.refusal(route, path, address, signed_in):
            raise refusal
        read_raw = partial(read_body, sender=caller) if token else read_unvouched
        body = await _body(req, route, body_decoder, read_raw)
        # The password may be optional, as in the proof of an address.
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
                    if refusal := throttles.refusal_of_account(route, token.account_id):
                        return refusal
                return route.handler(session, call)

        answer = await lane.run(run, caller)
        if isinstance(answer, ApiError):
            write_error(resp, answer)
            return
        resp.status = answer.status
        # Responses may contain secrets and tokens.
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
    # RecursionError: nested too deep; OverflowError: a number too long for Python.
    except (ValueError, RecursionError, OverflowError):
        return _read_leniently(raw, route.body)
    return body


def _read_leniently(raw: bytes, type_: Any) -> msgspec.Struct:
    try:
        body: msgspec.Struct = read_json(raw, type_)
    except InvalidValueError as error:
        raise invalid("invalid_body", error) from None
    return body


def _query(req: Request, route: Route) -> msgspec.Struct | None:
    if route.query is None:
        return None
    params = {
        name: value[-1] if isinstance(value, list) else value for name, value in req.params.items()
    }
    try:
        return read(params, route.query, path="", strict=False)
    except InvalidValueError as error:
        raise invalid("invalid_query", error) from None


_FALCON_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
