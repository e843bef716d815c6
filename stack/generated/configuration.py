"""docs/configuration.md, made from the settings: name, default, who reads it, meaning."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from shared.config import settings as module
from shared.config.processes import KEYS, READS
from shared.config.settings import Settings
from stack.folders import ROOT

FILE = ROOT / "docs" / "configuration.md"
_HEADING = re.compile(r"    # (.+)")

_INTRODUCTION = """\
# Configuration

Environment variables, checked by the process that needs them when it starts: all that is wrong is
said at once, a line each. Defaults work in development; with `ENVIRONMENT=production` a key that
can be guessed or has two uses, a connection to another machine without TLS, and a link that nobody
else can open, is refused, by name (`shared/config/production.py`). What is secret (keys, passwords,
the three addresses that hold one) may be in a file instead:
`JWT_SIGNING_KEY_FILE=/run/secrets/jwt_signing_key`. Who reads what stands in
`shared/config/processes.py`; in production a process has no keys beside its own.

This page is made from `shared/config/settings.py` by `make contracts`.
"""


class Variable(NamedTuple):
    """A setting, as the page shows it."""

    heading: str
    name: str
    default: str
    read_by: str
    meaning: str


def text() -> str:
    """The page."""
    parts, heading = [_INTRODUCTION], ""
    for variable in variables():
        if variable.heading != heading:
            heading = variable.heading
            parts.append(f"\n## {heading}\n\n| variable | default | read by | meaning |\n")
            parts.append("| --- | --- | --- | --- |\n")
        cells = (f"`{variable.name}`", variable.default, variable.read_by, variable.meaning)
        parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def variables() -> Iterator[Variable]:
    """All settings, in their order."""
    path = Path(module.__file__)
    lines = path.read_text().splitlines()
    (struct,) = (
        node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef) and node.name == Settings.__name__
    )
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    heading, seen = "", struct.lineno
    for node, following in zip(struct.body, struct.body[1:], strict=False):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        for line in lines[seen : node.lineno - 1]:
            if found := _HEADING.fullmatch(line):
                heading = found[1]
        seen = node.lineno
        name = node.target.id
        yield Variable(
            heading,
            name.upper(),
            _default(name.upper(), defaults[name]),
            _read_by(name.upper()),
            _meaning(following),
        )


def _meaning(node: ast.stmt) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str() as words)):
            return " ".join(words.split())
    raise ValueError(f"the setting before line {node.lineno} of {module.__file__} says no meaning")


def _default(name: str, default: object) -> str:
    if name in KEYS:
        return "a development key"
    match default:
        case "":
            return "empty"
        case bool():
            return f"`{str(default).lower()}`"
        case float():
            return f"`{default:g}`"
    return f"`{default}`"


def _read_by(name: str) -> str:
    readers = [process for process, read in READS.items() if name in read]
    return "all" if len(readers) == len(READS) else ", ".join(readers)
