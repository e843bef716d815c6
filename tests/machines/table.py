"""The table of machines and versions in a page of the docs: a row a cell, renewed by what ran."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

BEGIN = "<!-- matrix: written by make test-matrix -->\n"
HEAD = (
    "cell", "machine", "Python, PostgreSQL, RabbitMQ", "`make demo`", "rights, story, ops",
    "`make test`", "tried",
)  # fmt: skip
NOT_TRIED = "not tried"
_DATED = re.compile(r"\(\d{4}-\d\d-\d\d, \w+\)$")


def renew(page: Path, rows: Iterable[Sequence[str]]) -> None:
    """Put rows into the page's table; other cells', and what was not tried now, stay as they are.

    What stays in a row that is renewed says when it was tried, and at which commit.

    Args:
        page: has the line `BEGIN`, and after it nothing or the table.
        rows: the columns of `HEAD`; the first tells them apart.
    """
    before, _, after = page.read_text().partition(BEGIN)
    old, _, rest = after.lstrip("\n").partition("\n\n")
    known = {row[0]: row for row in map(_columns, old.splitlines()[2:])}
    for row in rows:
        before_ = known.get(row[0], row)
        known[row[0]] = tuple(
            _kept(old, before_[-1]) if new == NOT_TRIED else new
            for old, new in zip(before_, row, strict=True)
        )
    lines = [HEAD, ("---",) * len(HEAD), *known.values()]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page.write_text(f"{before}{BEGIN}\n{table}" + (f"\n{rest}" if rest else ""))


def _kept(result: str, tried: str) -> str:
    return result if result == NOT_TRIED or _DATED.search(result) else f"{result} ({tried})"


def _columns(line: str) -> tuple[str, ...]:
    return tuple(column.strip() for column in line.strip().strip("|").split("|"))
