"""Advisory lock numbers are unique: equal ones would block or skip unrelated work."""

import re

import pytest

from shared.db.locking import advisory_locks
from stack.folders import ROOT

NUMBERS = {name: value for name, value in vars(advisory_locks).items() if name.isupper()}
SOURCES = [
    path
    for folder in ("services", "shared", "stack")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "advisory_locks.py"
]
LITERAL = re.compile(r"advisory\w*\(\s*(\d[\d_]*)|7_?034_?(\d+)")


def test_lock_numbers_are_unique():
    assert len(set(NUMBERS.values())) == len(NUMBERS) > 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lock_numbers_are_defined_in_one_module(path):
    found = [match[0] for match in LITERAL.finditer(path.read_text())]
    if "migrations/versions" in path.as_posix():
        numbers = {int(re.sub(r"\D", "", one)) for one in found}
        assert numbers <= {advisory_locks.REQUEST_LOG_PARTITIONS}
    else:
        assert found == []
