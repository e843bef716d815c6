"""`POST /webhooks/{account_id}/<platform>/`: what a shop's delivery comes to.

It takes the way of every order: signature, admission, one message with a confirm, and no database.
What is in order and of no interest here is answered 200 and noted, for platforms give a URL up that
refuses: Shopify deletes the subscription, WooCommerce disables the webhook.
"""

import time
from datetime import UTC, datetime

import falcon
import msgspec
from falcon.asgi import Request, Response

from services.ingress.credentials.database_clock import DatabaseClock
from services.ingress.credentials.public_key import Signer
from services.ingress.metrics import Metrics
from services.ingress.platforms import becoming
from services.ingress.platforms.becoming import Note
from services.ingress.platforms.platform import Platform
from services.ingress.request_log.attempt import Attempt
from services.ingress.request_log.writer import RequestLog
from services.ingress.shops import deliveries
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.webhook import rules
from services.ingress.webhook.acceptor import Acceptor
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.endpoint import Webhook, tell_success
from services.ingress.webhook.refusals import as_error
from shared.http.bodies import read_unvouched
from shared.http.callers import traceparent
from shared.http.errors import ApiError, invalid
from shared.http.mount import write_error
from shared.validation.reading import InvalidValueError

_MAX_PING_BYTES = 64
_encoder = msgspec.json.Encoder()


class Noted(msgspec.Struct, kw_only=True):
    """What was sent is in order, and nothing is recorded of it; `note` says why."""

    status: str = "noted"
    note: Note
    message: str


class PlatformWebhook(Webhook):
    """The URL of one platform.

    Args:
        platform: which.
        scheme: how its requests are signed.
        admission: whether they are taken.
        acceptor: makes messages safe.
        metrics: counts outcomes.
        request_log: keeps what became of each request.
        clock: says when each came.
    """

    def __init__(
        self,
        platform: Platform,
        scheme: PlatformScheme,
        admission: Admission,
        acceptor: Acceptor,
        metrics: Metrics,
        request_log: RequestLog,
        clock: DatabaseClock,
    ) -> None:
        super().__init__(scheme, admission, acceptor, metrics, request_log, clock)
        self._platform = platform

    async def on_post(self, req: Request, resp: Response, account_id: str = "") -> None:
        """Answer a ping to whomever it is; accept or refuse anything else."""
        if self._platform.ping is not None and rules.is_form(req.content_type):
            await self._on_form(req, resp)
        else:
            await super().on_post(req, resp, account_id)

    async def _on_form(self, req: Request, resp: Response) -> None:
        # Unsigned, so a stranger's: nothing is looked up, counted for an account or kept.
        started = time.perf_counter()
        code = "ping"
        try:
            body = await read_unvouched(req, _MAX_PING_BYTES)
            if self._platform.ping is None or not self._platform.ping.fullmatch(body):
                raise as_error(rules.Refusal(415, "unsupported_media_type", rules.NOT_JSON))
            _tell_noted(resp, "ping")
        except ApiError as error:
            write_error(resp, error)
            code = error.code
        self._metrics.webhook(code, time.perf_counter() - started)

    async def _accept(self, req: Request, resp: Response, attempt: Attempt, signer: Signer) -> None:
        try:
            rules.check_form(req.content_type, req.get_header("Content-Encoding"), None)
            found = deliveries.read(
                self._platform,
                req.get_header,
                attempt.body,
                signer.account_id,
                datetime.fromtimestamp(attempt.at, UTC),
                is_test=signer.is_test,
                traceparent=traceparent(req),
            )
        except rules.Refusal as refusal:
            raise as_error(refusal) from None
        except InvalidValueError as error:
            raise invalid("invalid_body", error) from None
        except deliveries.UnfitError as error:
            attempt.order_id = str(error.order_id)
            raise ApiError(400, "invalid_body", str(error)) from None
        if found.order_id is not None:
            attempt.order_id = str(found.order_id)
        if found.message is not None:
            attempt.event_id, attempt.event_type = found.message.message_id, found.message.type
            await self._acceptor.accept(found.message)
        attempt.note = found.note
        if found.note is None:
            tell_success(req, resp, attempt)
        else:
            attempt.order_number = found.number
            _tell_noted(resp, found.note)


def _tell_noted(resp: Response, note: Note) -> None:
    resp.status = falcon.HTTP_200
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(Noted(note=note, message=becoming.SENTENCES[note]))
