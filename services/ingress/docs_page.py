"""`/openapi.json` and `/docs/`: the contract, for programs and for people, without the internet."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import falcon
import msgspec
from falcon.asgi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from services.ingress import openapi
from shared.http.route import Operation

_templates = Environment(
    loader=PackageLoader("services.ingress"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


class OpenApiDocument:
    """`GET /openapi.json`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._json = msgspec.json.encode(document)

    async def on_get(self, _: Request, resp: Response) -> None:
        """The document."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._json


class DocsPage:
    """`GET /docs/`, rendered once."""

    def __init__(
        self, operations: Sequence[Operation], document: dict[str, Any], prefix: str
    ) -> None:
        sections: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for operation in operations:
            sections[operation.tag].append(_view(operation, document, prefix))
        page = _templates.get_template("docs.html").render(
            spec=document, sections=sorted(sections.items()), prefix=prefix
        )
        self._html = page.encode()

    async def on_get(self, _: Request, resp: Response) -> None:
        """The page; it needs no script and loads nothing, and its policy says so."""
        resp.content_type = falcon.MEDIA_HTML
        resp.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
        )
        resp.data = self._html


def _view(operation: Operation, document: dict[str, Any], prefix: str) -> dict[str, Any]:
    path = prefix + operation.path
    described = document["paths"][path][operation.method.lower()]
    schemas = document["components"]["schemas"]
    body = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    alternatives = body.get("schema", {}).get("anyOf") or ([body["schema"]] if body else [])
    return {
        "id": f"{operation.method.lower()}{path.replace('/', '-')}",
        "method": operation.method,
        "path": path,
        "summary": operation.summary,
        "bearer": operation.bearer,
        "parameters": [
            {"description": "", "required": False} | parameter
            for parameter in described.get("parameters", [])
        ],
        "bodies": [
            {
                "name": _name(schema),
                "description": _resolved(schema, schemas).get("description", ""),
                "schema": _pretty(schema, schemas),
            }
            for schema in alternatives
        ],
        "answers": [
            (
                status,
                described["responses"][str(status)]["description"],
                _pretty(_content(described["responses"][str(status)]), schemas) if answer else "",
            )
            for status, answer in operation.answers.items()
        ],
        "errors": openapi.errors_of(operation),
    }


def _content(response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = response["content"]["application/json"]["schema"]
    return schema


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _resolved(schema: Any, schemas: dict[str, Any]) -> Any:
    """The schema with every reference replaced by what it points to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _resolved(schemas[_name(schema)], schemas)
        return {key: _resolved(value, schemas) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_resolved(value, schemas) for value in schema]
    return schema


def _pretty(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    return json.dumps(_resolved(schema, schemas), indent=2, ensure_ascii=False)
