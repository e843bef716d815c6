"""Generates OpenAPI 3.1 from the operations and their Structs."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.docstrings import schema_components, summary
from shared.http.bodies import INCOMPLETE
from shared.http.errors import BLOCKED, DATABASE_UNAVAILABLE, OVERLOADED
from shared.http.route import Operation, Route


class Error(msgspec.Struct, kw_only=True):
    """An error: a sentence for people and a stable code for programs.

    The `Link` header of the answer points to its cause and remedy. `faults` lists all that is wrong
    with a body, a query, a password or the headers of a signature, a sentence each.
    """

    error: str
    code: str
    faults: list[str] | msgspec.UnsetType = msgspec.UNSET


_EVERYWHERE = (
    (400, "bad_request", "This is no HTTP request, or a header of it cannot be read."),
    (408, "request_timeout", "The request did not arrive in time."),
    (414, "url_too_long", "The URL is too long."),
    (431, "head_too_large", "There are too many header fields, or too large ones."),
    (500, "internal_error", "Something broke on our side. It was logged."),
    (501, "unknown_transfer_coding", "The only Transfer-Encoding is chunked."),
    DATABASE_UNAVAILABLE,
    OVERLOADED,
)
_WITH_BODY = (
    (400, "invalid_body", "The body is invalid; `faults` says where and how."),
    INCOMPLETE,
    (413, "body_too_large", "The body is too large."),
)
_WITH_QUERY = ((400, "invalid_query", "The query is invalid; `faults` says where and how."),)
_THROTTLED = ((429, "rate_limited", "Too many requests."),)
_WITH_BEARER = ((401, "not_signed_in", "A valid access token is needed."), BLOCKED)


def document(operations: Sequence[Operation], *, prefix: str, server: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        operations: to describe.
        prefix: before every path.
        server: the URL of the API, without the prefix.
    """
    schemas, components = schema_components(_structs(operations))
    references = dict(zip(_structs(operations), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        path = paths[prefix + operation.path]
        path[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Order Fellow",
            "version": "1",
            "description": (
                "Signed order webhooks in; one recorded order and one email a step out. "
                "`/unsubscribe/` is not part of it: it is a page for people and mail programs (RFC "
                "8058), which the links in emails point to."
            ),
        },
        "servers": [{"url": server}],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def errors_of(operation: Operation) -> list[tuple[int, str, str]]:
    """Return every error of an operation: status, code and sentence, sorted.

    They are its own, and those of its body, query, token and rate limit.
    """
    errors = list(operation.errors)
    if operation.body is not None:
        errors += _WITH_BODY
    if operation.query is not None:
        errors += _WITH_QUERY
    if operation.bearer:
        errors += _WITH_BEARER
    if isinstance(operation, Route) and operation.is_bounded:
        errors += _THROTTLED
    errors += _EVERYWHERE
    seen: set[tuple[int, str]] = set()
    unique = []
    for status, code, sentence in errors:
        if (status, code) not in seen:
            seen.add((status, code))
            unique.append((status, code, sentence))
    return sorted(unique)


def statuses_of(operations: Sequence[Operation]) -> dict[str, tuple[int, ...]]:
    """Return the HTTP statuses of every error code of some operations, ascending."""
    found = {("method_not_allowed", 405)}  # Falcon's own, which no operation declares
    for operation in operations:
        found |= {(code, status) for status, code, _ in errors_of(operation)}
    statuses: dict[str, tuple[int, ...]] = {}
    for code, status in sorted(found):
        statuses[code] = (*statuses.get(code, ()), status)
    return statuses


def _operation(operation: Operation, references: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation, references),
    }
    if operation.bearer:
        described["security"] = [{"bearer": []}]
    parameters = [
        {"name": name, "in": "header", "required": required, "description": text, "schema": _STRING}
        for required, headers in ((True, operation.headers), (False, operation.optional_headers))
        for name, text in headers.items()
    ]
    parameters += [
        {"name": part[1:-1], "in": "path", "required": True, "schema": _STRING}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    if parameters:
        described["parameters"] = parameters
    bodies = _bodies(operation)
    if bodies:
        schemas = [references[body] for body in bodies]
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {
                "application/json": {
                    "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
                }
            },
        }
    return described


def _responses(operation: Operation, references: dict[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in operation.answers.items():
        description = summary(body) if body else "Done."
        responses[str(status)] = {"description": description}
        if body is not None:
            responses[str(status)]["content"] = {"application/json": {"schema": references[body]}}
    by_status: dict[int, list[str]] = defaultdict(list)
    for status, code, sentence in errors_of(operation):
        by_status[status].append(f"`{code}`: {sentence}")
    for status, lines in by_status.items():
        responses[str(status)] = {
            "description": "\n\n".join(lines),
            "content": {"application/json": {"schema": references[Error]}},
        }
    return responses


def _query_parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    (_,), components = schema_components([query])
    schema = components[query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in of.items() if key != "default"}
            if of.get("default", ...) is None
            else of,
        }
        for name, of in schema["properties"].items()
    ]


def _bodies(operation: Operation) -> tuple[type[msgspec.Struct], ...]:
    if operation.body is None:
        return ()
    return operation.body if isinstance(operation.body, tuple) else (operation.body,)


def _structs(operations: Sequence[Operation]) -> list[type[msgspec.Struct]]:
    found: dict[type[msgspec.Struct], None] = {Error: None}
    for operation in operations:
        found |= dict.fromkeys(_bodies(operation))
        found |= dict.fromkeys(body for body in operation.answers.values() if body is not None)
    return list(found)


_STRING = {"type": "string"}
