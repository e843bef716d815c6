"""A test's times are those at which it runs: its module was imported up to an hour before."""

import ast

import pytest

from stack.folders import ROOT

READS = {"now", "utcnow", "today", "time", "time_ns", "monotonic"}
"""Of `datetime`, `date` and `time`."""


def at_import(node):
    """Every call that importing a module makes."""
    if isinstance(node, ast.Call):
        yield node
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    inner = [node.args, *getattr(node, "decorator_list", ())] if is_function else [node]
    for each in inner:
        for child in ast.iter_child_nodes(each):
            yield from at_import(child)


def clocks(source):
    """The lines at which an import reads a clock."""
    return [
        call.lineno
        for call in at_import(ast.parse(source))
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in READS
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("datetime", "date", "time")
    ]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("NOW = datetime.now(UTC)", [1]),
        ("def f():\n    return time.time()", []),
        ("def f(at=time.time()):\n    return at", [1]),
        ("class A:\n    at = [datetime.now(UTC)]", [2]),
    ],
)
def test_what_reads_a_clock_is_found(source, lines):
    assert clocks(source) == lines


def test_no_test_is_given_a_time_of_its_import():
    found = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "tests").rglob("*.py")
        if (lines := clocks(path.read_text()))
    }
    assert found == {}
