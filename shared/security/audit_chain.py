"""The chain of the audit log: each row's hash covers its content and the hash of the row before.

So whoever changes, removes or moves a row would have to write all later ones anew, and whoever has
noted one of their hashes elsewhere sees it.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

GENESIS = bytes(32)
"""What stands for the hash before the first row."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a row says; see the table `audit_log`."""

    sequence: int
    event_id: UUID
    type: str
    happened_at: datetime
    actor: str
    address: str
    correlation_id: str
    data: str

    def canonical(self) -> bytes:
        """The one way to write it down: a JSON array in ASCII, the time in UTC to the microsecond.

        Simple enough to be checked by other means than this program.
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
    """The hash of a row: SHA-256 over the hash before it and its canonical content.

    Args:
        previous: the hash of the row before; `GENESIS` for the first.
        content: what the row says.
    """
    return hashlib.sha256(previous + content.canonical()).digest()
