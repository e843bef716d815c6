"""Formats and writes rows of the request log and of the use of secrets."""

import io
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from uuid import UUID

from psycopg2.errors import CheckViolation
from sqlalchemy import text

from services.ingress.request_log.attempt import Attempt
from shared.config.loading import settings
from shared.db import arrays
from shared.db.session import engine
from shared.security import webhook_keys

# Characters of a header, which strangers fill; sixteen signatures are shorter.
MAX_TEXT = 2048
COLUMNS = (
    "account_id, secret_id, at, accepted, code, event_type, event_id, order_id, idempotency_key, "
    "scheme, signature, webhook_timestamp, body_sha256, body_bytes, latency_us, "
    "client_address, note, order_number, fault"
)
NULL = "\\N"
_NOT_NOTED = f"{NULL}\t{NULL}\t{NULL}"
_COPY = f"COPY webhook_requests ({COLUMNS}) FROM STDIN"
_READ_BYTES = 1 << 20  # psycopg2 takes the interpreter's lock for each chunk
# Of the text format (PostgreSQL, COPY, "Text Format"); a NUL has no form at all.
_PLAIN = re.compile(rb"[0-9A-Za-z+/=,.:-]+")
"""Values that need no escaping and hold no secret, which has an underscore."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\ufffd"})


class SecretUse:
    """The use of one secret since the last write.

    Attributes:
        ids: the first two columns of each of its rows.
        accepted: the number of accepted requests.
        last_used_at: the arrival of the latest, in seconds since 1970.
    """

    __slots__ = ("accepted", "ids", "last_used_at")

    def __init__(self, account_id: UUID, secret_id: UUID) -> None:
        self.ids = f"{account_id}\t{secret_id}"
        self.accepted = 0
        self.last_used_at = 0.0


def row(attempt: Attempt, ids: str, scheme: str, latency_us: int, address: str) -> bytes:
    """Return the row of a request in COPY's text format.

    Args:
        attempt: the request.
        ids: the columns of account and secret.
        scheme: its signature scheme.
        latency_us: from its arrival to its answer, in microseconds.
        address: of the client.
    """
    code, body = attempt.code, attempt.body
    second, micros = divmod(int(attempt.at * 1_000_000), 1_000_000)
    hashed = f"\\\\x{attempt.sha256}\t{len(body)}" if body else "\\N\t\\N"
    return (
        f"{ids}\t{_second(second)}.{micros:06}+00\t{code == 'accepted'}\t{code}\t"
        f"{attempt.event_type or NULL}\t{attempt.event_id or NULL}\t{attempt.order_id or NULL}\t"
        f"{_text(attempt.key)}\t{scheme}\t{_text(attempt.signature)}\t"
        f"{_text(attempt.timestamp)}\t{hashed}\t{latency_us}\t{_address(address)}\t"
        f"{_noted(attempt) if attempt.note or attempt.fault else _NOT_NOTED}\n"
    ).encode()


def write(rows: Sequence[bytes]) -> int:
    """Copy rows into the log; make the partition of their day if it is missing.

    Returns:
        The number of rows left out: their day can have no partition, as by a wrong clock.

    Raises:
        psycopg2.Error, sqlalchemy.exc.SQLAlchemyError: it failed; rows of some days may have been
            written.
    """
    try:
        _copy(rows)
    except CheckViolation:  # no partition for one of them
        keep_partitions()
        return sum(_copy_day(list(of_day)) for _, of_day in groupby(sorted(rows, key=_day), _day))
    return 0


def keep_partitions() -> datetime:
    """Make the partitions of the next days, and drop those that have expired by both clocks.

    Returns:
        The beginning of the oldest partition.
    """
    days = settings().retention_request_log_days
    call = text("SELECT keep_webhook_request_partitions(:days, :host)")
    with engine().begin() as connection:
        oldest = connection.execute(call, {"days": days, "host": datetime.now(UTC)}).scalar_one()
    return datetime.combine(oldest, datetime.min.time(), UTC)


def write_use(use: Mapping[UUID, SecretUse]) -> None:
    """Add to the counts of each secret, in the hour of its latest use."""
    # Sorted, so that two workers with the same secrets do not deadlock.
    secrets = sorted(use)
    latest = [datetime.fromtimestamp(use[id_].last_used_at, UTC) for id_ in secrets]
    with engine().begin() as connection:
        connection.execute(
            _ADD_USE,
            {
                "secret_id": arrays.uuids(secrets),
                "accepted": [use[id_].accepted for id_ in secrets],
                "last_used_at": arrays.times(latest),
            },
        )


def _copy(rows: Sequence[bytes]) -> None:
    with engine().begin() as connection:
        cursor = connection.connection.cursor()
        # Losing half a second of the log is cheaper than a sync to disk that delays the recorder.
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.copy_expert(_COPY, io.BytesIO(b"".join(rows)), _READ_BYTES)


def _copy_day(rows: Sequence[bytes]) -> int:
    try:
        _copy(rows)
    except CheckViolation:
        return len(rows)
    return 0


def _day(row_: bytes) -> bytes:
    return row_.split(b"\t", 3)[2][:10]


def _noted(attempt: Attempt) -> str:
    number, fault = (_escaped(text_) or NULL for text_ in (attempt.order_number, attempt.fault))
    return f"{attempt.note or NULL}\t{number}\t{fault}"


def _text(value: bytes | None) -> str:
    if not value:
        return NULL
    # A header may hold any bytes; Latin-1 has a character for each (RFC 9110, 5.5).
    text_ = value.decode("latin-1")
    return text_[:MAX_TEXT] if _PLAIN.fullmatch(value) else _escaped(text_)


def _escaped(text_: str) -> str:
    return webhook_keys.redacted(text_)[:MAX_TEXT].translate(_ESCAPES)


@lru_cache(maxsize=1000)
def _address(value: str) -> str:
    return value[:MAX_TEXT].translate(_ESCAPES)


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))


_ADD_USE = text("""
    INSERT INTO webhook_secret_use AS held (secret_id, hour_of_day, hour, accepted, last_used_at)
    SELECT secret_id, extract(hour FROM last_used_at AT TIME ZONE 'UTC'),
           date_trunc('hour', last_used_at, 'UTC'), accepted, last_used_at
    FROM unnest(CAST(:secret_id AS uuid[]), CAST(:accepted AS bigint[]),
                CAST(:last_used_at AS timestamptz[])) AS given (secret_id, accepted, last_used_at)
    ORDER BY secret_id
    ON CONFLICT (secret_id, hour_of_day) DO UPDATE SET
        accepted = CASE WHEN held.hour = excluded.hour THEN held.accepted + excluded.accepted
                        WHEN held.hour < excluded.hour THEN excluded.accepted
                        ELSE held.accepted END,
        hour = greatest(held.hour, excluded.hour),
        last_used_at = greatest(held.last_used_at, excluded.last_used_at)
""")
