"""`make contracts`: write the documents that are made from the code.

`docs/contracts/openapi.json` is what the HTTP API takes and answers, `asyncapi.json` what travels
on the bus: both are for programs. `docs/configuration.md` is for people. What they say is so; the
tests compare.
"""

import json
from typing import Any

from services.ingress.app import OPERATIONS, PREFIX
from services.ingress.docs import openapi
from shared.config.settings import Settings
from stack.folders import ROOT
from stack.generated import asyncapi, configuration

FOLDER = ROOT / "docs" / "contracts"


def documents() -> dict[str, dict[str, Any]]:
    """The documents by the name of their file. The server is the one of `make run`."""
    server = Settings().public_url
    return {
        "openapi.json": openapi.document(OPERATIONS, prefix=PREFIX, server=server),
        "asyncapi.json": asyncapi.document(),
    }


def as_text(document: dict[str, Any]) -> str:
    """A document as it stands in its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them."""
    for name, document in documents().items():
        (FOLDER / name).write_text(as_text(document))
    configuration.FILE.write_text(configuration.text())


if __name__ == "__main__":
    main()
