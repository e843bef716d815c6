"""The numbers of PostgreSQL's advisory locks, which share one key space per database.

Each number is here, and nowhere else but in migrations. Named locks use `named`; the lock of an
account's secrets the random part of its id.
"""

from typing import Any

from sqlalchemy import func

MIGRATIONS = 7_034_221
"""Held while migrations run."""
REQUEST_LOG_PARTITIONS = 7_034_222
"""Held while a partition of the request log is added or dropped, by functions of the database
(migrations 0003, 0012)."""
AUDIT_CHAIN = 7_034_223
"""Held while rows are appended to the audit log, so that two writers do not extend the same row."""
REFUSED_ADDRESSES = 7_034_224
"""Held while businesses are notified of refused addresses."""


def named(name: str) -> Any:
    """Return the SQL expression of a named lock's number."""
    return func.hashtextextended(name, 0)
