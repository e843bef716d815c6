"""What is known of one webhook request, filled in as it is found out."""

import time
from hashlib import sha256
from uuid import UUID

from services.ingress.credentials.public_key import Signer


class Attempt:
    """One request, accepted or refused. Slots: there is one for each.

    Attributes:
        started: when it came, on `time.perf_counter`.
        at: the same, in seconds since 1970; see `DatabaseClock.stamp`.
        account_id: whose it is; without a right signature, whose it claims to be. None where that
            account is not known to be there.
        secret: what the request is rightly signed by or, with `X-API-Key`, the one that was named.
        timestamp: the header of that name, where the scheme has one.
        signature: the header, as it came.
        key: what makes it idempotent: `Idempotency-Key` or `webhook-id`, as it came.
        body: the raw body; empty until it was read.
        order_id: the order it makes or changes; None where it was not understood.
        event_id: the id of its message.
        event_type: what the message says happened.
        code: `accepted`, or the code of the error.
        note: why nothing is recorded of what is accepted.
        order_number: of what has a note, as its shop calls it: the order may be in no book.
    """

    __slots__ = (
        "_sha256",
        "account_id",
        "at",
        "body",
        "code",
        "event_id",
        "event_type",
        "key",
        "note",
        "order_id",
        "order_number",
        "secret",
        "signature",
        "started",
        "timestamp",
    )

    def __init__(self, at: float) -> None:
        self.started = time.perf_counter()
        self.at = at
        self.account_id: UUID | None = None
        self.secret: Signer | None = None
        self.timestamp = self.signature = self.body = b""
        self.key: bytes | None = None
        self.order_id: str | None = None
        self.event_id: str | None = None
        self.event_type: str | None = None
        self.code = ""
        self.note: str | None = None
        self.order_number = ""
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """The hash of the body in hexadecimal digits, made once; the body does not change then."""
        if not self._sha256:
            self._sha256 = sha256(self.body).hexdigest()
        return self._sha256
