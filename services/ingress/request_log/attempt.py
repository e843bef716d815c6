"""The record of one webhook request, filled in while it is handled."""

import time
from hashlib import sha256
from uuid import UUID

from services.ingress.credentials.public_key import Signer


class Attempt:
    """One request, accepted or refused. With slots, since each request makes one.

    Attributes:
        started: when it arrived, on `time.perf_counter`.
        at: the same, in seconds since 1970; see `DatabaseClock.stamp`.
        account_id: of the sender; before the signature is verified, the claimed account. None if
            that account is not known to exist.
        secret: that verified the request; with `X-API-Key`, the one that the header names.
        timestamp: the raw header of Standard Webhooks.
        signature: the raw header.
        key: the raw `Idempotency-Key` or `webhook-id`, or a platform's delivery id.
        body: the raw body; empty until it was read.
        order_id: the order that it creates or changes; None if that is not known.
        event_id: the id of its message.
        event_type: the type of its message.
        code: `accepted`, or the error code.
        note: why nothing is recorded of an accepted request.
        fault: what is wrong with a signed delivery of a platform, or the detail of its note; only
            in the request log.
        order_number: with a note, the shop's number: the order may be in no other table.
    """

    __slots__ = (
        "_sha256",
        "account_id",
        "at",
        "body",
        "code",
        "event_id",
        "event_type",
        "fault",
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
        self.fault = ""
        self.order_number = ""
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        """The hash of the body in hexadecimal digits; the body must not change afterwards."""
        if not self._sha256:
            self._sha256 = sha256(self.body).hexdigest()
        return self._sha256
