"""`POST /webhooks/{account_id}/<platform>/`: the endpoint of a platform's deliveries.

It handles them like every order: signature, admission, one message with a confirm, no database.
A valid delivery that is not recorded is answered 200 with a note, since platforms give up a URL
that refuses: Shopify deletes the subscription, WooCommerce disables the webhook.
"""

import time
from datetime import UTC, datetime

import falcon
import msgspec
from falcon.asgi import Request, Response

from services.ingress.credentials.public_key import Signer
from services.ingress.platforms import order_events
from services.ingress.platforms.order_events import Note
from services.ingress.platforms.platform import Platform
from services.ingress.request_log.attempt import Attempt
from services.ingress.shops import deliveries
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.webhook import rules
from services.ingress.webhook.authentication import account_of
from services.ingress.webhook.endpoint import Parts, Webhook, answer_accepted
from services.ingress.webhook.refusals import as_error
from shared.http.bodies import read_unvouched
from shared.http.callers import traceparent
from shared.http.errors import ApiError, invalid
from shared.http.mount import write_error
from shared.validation.reading import InvalidValueError

_MAX_PING_BYTES = 64
_LONGEST_FAULT = 300  # characters in the request log
NO_ACCOUNT = (
    "The path names no account: before the platform's name it needs the `id` in the answer to a "
    "sign-in, a UUID."
)
_encoder = msgspec.json.Encoder()


class Noted(msgspec.Struct, kw_only=True):
    """The delivery is valid, and nothing is recorded of it; `note` states why."""

    status: str = "noted"
    note: Note
    message: str


class PlatformWebhook(Webhook):
    """The endpoint of one platform.

    Args:
        platform: that sends to it.
        scheme: authenticates requests.
        parts: of the worker.
    """

    def __init__(self, platform: Platform, scheme: PlatformScheme, parts: Parts) -> None:
        super().__init__(scheme, parts)
        self._platform = platform

    async def on_post(self, req: Request, resp: Response, account_id: str = "") -> None:
        """Answer an unsigned ping, or accept or refuse a delivery."""
        if self._platform.ping is not None and rules.is_form(req.content_type):
            await self._on_form(req, resp, account_id)
        else:
            await super().on_post(req, resp, account_id)

    async def _on_form(self, req: Request, resp: Response, account_id: str) -> None:
        # A ping is unsigned: nothing is looked up, counted for an account or logged. A malformed
        # account id is refused all the same, so that the shop shows the mistake.
        started = time.perf_counter()
        code = "ping"
        try:
            body = await read_unvouched(req, _MAX_PING_BYTES)
            if self._platform.ping is None or not self._platform.ping.fullmatch(body):
                raise as_error(rules.Refusal(415, "unsupported_media_type", rules.NOT_JSON))
            if account_of(account_id) is None:
                raise as_error(rules.Refusal(404, "not_found", NO_ACCOUNT))
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
            attempt.fault = error.faults[0][:_LONGEST_FAULT]
            raise invalid("invalid_body", error) from None
        attempt.order_id = found.order_id
        if found.message is not None:
            attempt.event_id, attempt.event_type = found.message.message_id, found.message.type
            await self._acceptor.accept(found.message)
        attempt.note, attempt.fault = found.note, found.fault
        if found.note is None:
            answer_accepted(req, resp, attempt)
        else:
            attempt.order_number = found.number
            _tell_noted(resp, found.note)


def _tell_noted(resp: Response, note: Note) -> None:
    resp.status = falcon.HTTP_200
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(Noted(note=note, message=order_events.SENTENCES[note]))
