"""PostgreSQL array literals, for `unnest(CAST(:name AS uuid[]))`.

psycopg2 writes a list as `ARRAY['a', 'b', ...]`, whose elements the server parses and types one by
one. A literal is one constant, which takes half the time per row on both sides.

Syntax: PostgreSQL, 8.15.2 "Array Value Input".
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def uuids(values: Iterable[UUID | str]) -> str:
    """Return a literal for `uuid[]`."""
    return "{" + ",".join(map(str, values)) + "}"


def times(values: Iterable[datetime]) -> str:
    """Return a literal for `timestamptz[]`; the values must have a time zone."""
    return "{" + ",".join([value.isoformat() for value in values]) + "}"


def booleans(values: Iterable[bool]) -> str:
    """Return a literal for `boolean[]`."""
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """Return a literal for `text[]`; None becomes NULL."""
    return "{" + ",".join(["NULL" if v is None else _quoted(v) for v in values]) + "}"


def blobs(values: Iterable[bytes]) -> str:
    """Return a literal for `bytea[]`, in hexadecimal form (PostgreSQL, 8.4.1)."""
    return "{" + ",".join(['"\\\\x' + value.hex() + '"' for value in values]) + "}"


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
