"""Reads from inside of a transaction what it has written; for dry runs, which are rolled back.

The numbers are complete: PostgreSQL counts the changes of the current transaction by table,
including those of triggers ("The Cumulative Statistics System", pg_stat_xact_user_tables). The rows
are found by the ids in the transaction's statements, and by `xmin`; so the cost does not depend on
the size of the tables.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, event, text

from shared.db import arrays

MOST_ROWS = 50  # shown of a table
MOST_IDS = 5_000
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Row(msgspec.Struct):
    """A written row.

    Attributes:
        values: JSON values by column, without bytea columns, which are sealed or hashed.
        before: the committed values of the changed columns; None for a new row.
    """

    values: dict[str, Any]
    before: dict[str, Any] | None = None


class Changes(msgspec.Struct):
    """The changes to one table.

    Attributes:
        table: its name.
        inserted: number of inserted rows.
        updated: number of updated rows.
        deleted: number of deleted rows.
        rows: the inserted and updated rows that were found, at most `MOST_ROWS`; empty for a table
            that the role may not read.
    """

    table: str
    inserted: int
    updated: int
    deleted: int
    rows: list[Row]


@contextmanager
def mentioned_ids(connection: Connection) -> Iterator[set[str]]:
    """Collect the UUIDs in the statements of a connection and their parameters."""
    found: set[str] = set()

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        if len(found) < MOST_IDS:
            found.update(_ID.findall(f"{statement} {values}"))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(connection, "before_cursor_execute", note)


def read(connection: Connection, ids: Collection[str], beside: Collection[str]) -> list[Changes]:
    """Return the changes made by the connection's transaction, by table.

    Args:
        connection: in its first transaction: the counts of earlier ones would be included.
        ids: UUIDs that find the rows.
        beside: tables to leave out.
    """
    counted = connection.execute(_COUNTED).all()
    return [
        Changes(
            row.relname,
            row.n_tup_ins,
            row.n_tup_upd,
            row.n_tup_del,
            _rows(connection, row.relname, ids),
        )
        for row in counted
        if row.relname not in beside
    ]


def compare(connection: Connection, changes: Collection[Changes]) -> None:
    """Set `before` of the updated rows; call it after the transaction was rolled back."""
    for change in changes:
        key = connection.scalar(_KEY, {"table": change.table}) if change.updated else None
        rows = {row.values[key]: row for row in change.rows} if key else {}
        if not rows:
            continue
        columns = _columns(connection, change.table)
        ids = {"ids": arrays.uuids(map(str, rows))}
        query = f'{_select(change.table, columns)} WHERE t."{key}" = ANY(CAST(:ids AS uuid[]))'
        for before in connection.execute(text(query), ids).scalars():
            row = rows[before[key]]
            row.before = {n: v for n, v in before.items() if v != row.values.get(n)}


def _rows(connection: Connection, table: str, ids: Collection[str]) -> list[Row]:
    """Return the rows with one of the ids that were written since the transaction got its id.

    A savepoint has its own, later id (PostgreSQL, "Subtransactions"), hence `age() <= 0`.
    """
    columns = _columns(connection, table)
    found_by = [name for name, is_first in columns.items() if is_first]
    if not found_by or not ids:
        return []
    places = " OR ".join(f't."{name}" = ANY(CAST(:ids AS uuid[]))' for name in found_by)
    query = f"{_select(table, columns)} WHERE age(t.xmin) <= 0 AND ({places}) LIMIT {MOST_ROWS}"
    values = connection.execute(text(query), {"ids": arrays.uuids(ids)}).scalars()
    return [Row(dict(value)) for value in values]


def _select(table: str, columns: Mapping[str, bool]) -> str:
    listed = ", ".join(f't."{name}"' for name in columns)
    return f'SELECT to_jsonb(shown) FROM "{table}" t, LATERAL (SELECT {listed}) shown'  # noqa: S608


def _columns(connection: Connection, table: str) -> dict[str, bool]:
    """Return the columns to show, each with whether an index of UUIDs begins with it.

    Empty if the role may not read the table's `xmin`.
    """
    rows = connection.execute(_COLUMNS, {"table": table}).all()
    return {row.attname: row.is_first for row in rows}


_COUNTED = text("""
    SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
    WHERE schemaname = 'public' AND n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY relname
""")
_COLUMNS = text("""
    SELECT a.attname,
           a.atttypid = CAST('uuid' AS regtype) AND EXISTS (
               SELECT FROM pg_index i
               WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indpred IS NULL
           ) AS is_first
    FROM pg_attribute a
    WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid <> CAST('bytea' AS regtype) AND has_table_privilege(a.attrelid, 'SELECT')
    ORDER BY a.attnum
""")
# The primary key if it is one UUID column, as that of every table that is updated.
_KEY = text("""
    SELECT a.attname FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = CAST(:table AS regclass) AND i.indisprimary AND i.indnatts = 1
          AND a.atttypid = CAST('uuid' AS regtype) AND has_table_privilege(i.indrelid, 'SELECT')
""")
