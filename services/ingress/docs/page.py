"""`/openapi.json` and `/docs/`: the API's documentation, which loads nothing from elsewhere."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import falcon
import msgspec
from falcon.asgi import Request, Response

from services.ingress.docs import openapi, schema_view
from services.ingress.docs.error_codes import CODES
from shared.docstrings import REF, summary
from shared.http.route import Operation
from shared.intake.event_bodies import BODIES
from shared.web.rendering import STATIC, environment

_templates = environment("services.ingress.docs", STATIC)


class OpenApiDocument:
    """`GET /openapi.json`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._json = msgspec.json.encode(document)

    async def on_get(self, _: Request, resp: Response) -> None:
        """Answer with the document."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._json

    on_head = on_get


class DocsPage:
    """`GET /docs/`, rendered at the first request, so that a worker starts sooner.

    Args:
        operations: to describe.
        document: their OpenAPI document.
        prefix: before every path.
    """

    def __init__(
        self, operations: Sequence[Operation], document: dict[str, Any], prefix: str
    ) -> None:
        self._of = operations, document, prefix

    async def on_get(self, _: Request, resp: Response) -> None:
        """Answer with the page. Its policy forbids scripts and loads, of which it has none."""
        resp.content_type = falcon.MEDIA_HTML
        resp.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
        )
        resp.data = await asyncio.to_thread(lambda: self._html)

    on_head = on_get

    @cached_property
    def _html(self) -> bytes:
        operations, document, prefix = self._of
        sections: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for operation in operations:
            sections[operation.tag].append(_operation(operation, document, prefix))
        page = _templates.get_template("docs.html").render(
            spec=document,
            sections=sections,
            events=_events(document["components"]["schemas"]),
            errors=_errors(operations),
            prefix=prefix,
            slug=_slug,
        )
        return page.encode()


def _operation(operation: Operation, document: dict[str, Any], prefix: str) -> dict[str, Any]:
    path = prefix + operation.path
    described = document["paths"][path][operation.method.lower()]
    schemas = document["components"]["schemas"]
    body = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    alternatives = body.get("schema", {}).get("anyOf") or ([body["schema"]] if body else [])
    return {
        "id": _slug(f"{operation.method} {operation.path}"),
        "method": operation.method,
        "path": operation.path,
        "summary": operation.summary,
        "bearer": operation.bearer,
        "parameters": [
            {"description": "", "required": False} | parameter
            for parameter in described.get("parameters", [])
        ],
        # The bodies of events have their own section.
        "takes_events": len(alternatives) > 1,
        "body": _shown(alternatives[0], schemas) if len(alternatives) == 1 else None,
        "answers": [
            (
                status,
                described["responses"][str(status)]["description"],
                _shown(_content(described["responses"][str(status)]), schemas) if answer else None,
            )
            for status, answer in operation.answers.items()
        ],
        "errors": openapi.errors_of(operation),
    }


def _events(schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bodies of events, in the order of `BODIES`."""
    return [
        {"type": type_, "text": summary(body)}
        | _shown({"$ref": REF.format(name=body.__name__)}, schemas)
        for type_, body in BODIES.items()
    ]


def _errors(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    answered: dict[str, list[str]] = defaultdict(list)
    for operation in operations:
        for code in dict.fromkeys(code for _, code, _ in openapi.errors_of(operation)):
            answered[code].append(f"{operation.method} {operation.path}")
    statuses = openapi.statuses_of(operations)
    return [
        {
            "code": code,
            "statuses": statuses[code],
            "cause": error.cause,
            "cure": error.cure,
            "is_passing": error.is_passing,
            # A code of most operations needs no list.
            "by": answered[code] if len(answered[code]) < len(operations) / 2 else [],
        }
        for code, error in CODES.items()
    ]


def _shown(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "members": list(schema_view.members(schema, schemas)),
        "example": json.dumps(schema_view.example(schema, schemas), indent=2, ensure_ascii=False),
    }


def _content(response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = response["content"]["application/json"]["schema"]
    return schema


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
