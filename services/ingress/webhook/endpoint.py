"""The hot path: one signed order in, one confirmed message out.

The scheme authenticates the sender first (`authentication.py`). Then come, in this order: block,
address, allowed schemes, secret's state, rate limit (`admission.py`), form, idempotency key,
decoding. The rules themselves are in `rules.py`.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import falcon
import msgspec
from falcon.asgi import Request, Response

from services.ingress.credentials.database_clock import DatabaseClock
from services.ingress.credentials.public_key import Signer
from services.ingress.metrics import Metrics
from services.ingress.request_log import receipts
from services.ingress.request_log.attempt import Attempt
from services.ingress.request_log.writer import RequestLog
from services.ingress.webhook import rules
from services.ingress.webhook.acceptor import Acceptor
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.authentication import Scheme
from services.ingress.webhook.known_keys import KnownKeys
from services.ingress.webhook.refusals import as_error
from shared.bus.contract.events import CREATED
from shared.bus.contract.message import Message
from shared.http.callers import traceparent
from shared.http.errors import ApiError, invalid
from shared.http.mount import write_error
from shared.ids import order_of_key
from shared.intake import bodies

# A member of an event; within a text its quotation marks would be escaped. Where `metadata` has a
# member of this name, the order's key is computed needlessly, and nothing else.
_HAS_NUMBER = b'"order_number":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a worker that its endpoints share.

    Attributes:
        admission: the checks after authentication.
        acceptor: stores messages.
        metrics: counts outcomes.
        request_log: takes a row for each request.
        clock: stamps the arrival of each.
    """

    admission: Admission
    acceptor: Acceptor
    metrics: Metrics
    request_log: RequestLog
    clock: DatabaseClock


class Webhook(ABC):
    """Base of the endpoints that take orders.

    Args:
        scheme: authenticates requests.
        parts: of the worker.
    """

    def __init__(self, scheme: Scheme, parts: Parts) -> None:
        self._scheme = scheme
        self._admission = parts.admission
        self._acceptor = parts.acceptor
        self._metrics = parts.metrics
        self._request_log = parts.request_log
        self._clock = parts.clock

    async def on_post(self, req: Request, resp: Response, account_id: str = "") -> None:
        """Accept or refuse one request."""
        attempt = Attempt(self._clock.stamp())
        is_counted = True
        try:
            secret = await self._scheme.authenticate(req, attempt, account_id)
            is_counted = secret.is_counted
            await self._admission.admit(
                req, resp, secret, detects_copies=self._scheme.detects_copies
            )
            await self._accept(req, resp, attempt, secret)
        except ApiError as error:
            write_error(resp, error)
            attempt.code = error.code
        else:
            attempt.code = "accepted"
        seconds = time.perf_counter() - attempt.started
        if is_counted:
            self._metrics.webhook(attempt.code, seconds)
        self._request_log.add(req, attempt, self._scheme.name, seconds)

    @abstractmethod
    async def _accept(self, req: Request, resp: Response, attempt: Attempt, signer: Signer) -> None:
        """Handle an authenticated and admitted request, and answer it.

        Raises:
            ApiError: it is refused.
        """


def answer_accepted(
    req: Request, resp: Response, attempt: Attempt, warnings: Sequence[str] = ()
) -> None:
    """Answer 201, with a receipt if the request asks for one.

    Args:
        req: the request.
        resp: the answer.
        attempt: the request's record, with its `order_id`.
        warnings: sentences on probable mistakes in the body.
    """
    resp.status = falcon.HTTP_201
    resp.content_type = falcon.MEDIA_JSON
    resp.data = b'{"status":"success","order_id":"%s"}' % (attempt.order_id or "").encode()
    if warnings:
        resp.data = resp.data[:-1] + b',"warnings":%s}' % msgspec.json.encode(warnings)
    if receipts.is_asked_for(req):
        receipts.attach(resp, attempt)


class OrderWebhook(Webhook):
    """`POST /webhooks/orders/` and `POST /webhooks/{account_id}/orders/`.

    Args:
        scheme: authenticates requests.
        parts: of the worker.
        known_keys: the idempotency keys of this worker.
    """

    def __init__(self, scheme: Scheme, parts: Parts, known_keys: KnownKeys) -> None:
        super().__init__(scheme, parts)
        self._known_keys = known_keys

    async def _accept(self, req: Request, resp: Response, attempt: Attempt, signer: Signer) -> None:
        try:
            key = rules.check_form(
                req.content_type, req.get_header("Content-Encoding"), attempt.key
            )
            order_id, message, warnings = bodies.read_with_warnings(
                attempt.body,
                signer.account_id,
                attempt.at,
                traceparent(req),
                key,
                is_test=signer.is_test,
                sha256=attempt.sha256,
            )
        except rules.Refusal as refusal:
            raise as_error(refusal) from None
        except bodies.BodyError as error:
            raise invalid("invalid_body", error) from None
        attempt.order_id, attempt.event_id = str(order_id), message.message_id
        attempt.event_type = message.type
        if key is not None and message.type in CREATED:
            await self._accept_once(signer, key, attempt.order_id, message)
        else:
            await self._acceptor.accept(message)
        answer_accepted(req, resp, attempt, warnings)

    async def _accept_once(self, signer: Signer, key: str, order_id: str, message: Message) -> None:
        claimed = order_id
        if _HAS_NUMBER in message.body:
            # Its id is derived from its number, so the key's id has to be computed.
            claimed = str(order_of_key(signer.account_id, key, is_test=signer.is_test))
            self._known_keys.claim(claimed, message.body, order_id)
        else:
            self._known_keys.claim(claimed, message.body)
        is_accepted = False
        try:
            await self._acceptor.accept(message)
            is_accepted = True
        finally:
            self._known_keys.settle(claimed, is_accepted=is_accepted)
