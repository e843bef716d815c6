"""The hash chain of the audit log: each hash covers the row's content and the previous hash.

So changing, removing or moving a row requires rewriting all later ones, which a copy of one of
their hashes, kept elsewhere, reveals.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

GENESIS = bytes(32)
"""The previous hash of the first row."""


@dataclass(frozen=True, slots=True)
class Content:
    """The hashed columns of a row; see the table `audit_log`."""

    sequence: int
    event_id: UUID
    type: str
    happened_at: datetime
    actor: str
    address: str
    correlation_id: str
    data: str

    def canonical(self) -> bytes:
        """Return the canonical form: a JSON array in ASCII, the time in UTC with microseconds.

        Simple enough to be verified by independent programs.
        """
        time = self.happened_at.astimezone(UTC).isoformat(timespec="microseconds")
        values = [
            self.sequence,
            str(self.event_id),
            self.type,
            time,
            self.actor,
            self.address,
            self.correlation_id,
            self.data,
        ]
        return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode()


def link(previous: bytes, content: Content) -> bytes:
    """Return the hash of a row: SHA-256 of the previous hash and the canonical content.

    Args:
        previous: hash of the previous row; `GENESIS` for the first.
        content: of the row.
    """
    return hashlib.sha256(previous + content.canonical()).digest()
