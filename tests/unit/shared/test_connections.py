"""Every connection to the database uses `connect_args`."""

import ast

from stack.folders import ROOT


def makers():
    """Return the calls that create connections, with their locations."""
    for folder in ("services", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "create_engine",
                    "sqlalchemy.create_engine",
                    "psycopg2.connect",
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def is_bounded(call):
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return given.get("connect_args", given.get(None, "")).startswith("connect_args(")


def test_every_connection_has_them():
    found = dict(makers())
    assert len(found) >= 5
    assert [place for place, call in found.items() if not is_bounded(call)] == []
