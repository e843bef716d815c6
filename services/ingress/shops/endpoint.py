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
from services.ingress.platforms.platform import Platform, Said, Topic
from services.ingress.request_log.attempt import Attempt
from services.ingress.request_log.writer import RequestLog
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.webhook import rules
from services.ingress.webhook.acceptor import Acceptor
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.endpoint import Webhook, tell_success
from services.ingress.webhook.refusals import as_error
from shared.bus.contract.events import decode
from shared.bus.contract.message import message_for
from shared.http.errors import ApiError, invalid
from shared.http.mount import read_body, traceparent, write_error
from shared.intake.bodies import SOURCE
from shared.validation.reading import InvalidValueError, read_json

_FORM = "application/x-www-form-urlencoded"
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
        self._decoder = msgspec.json.Decoder(platform.order)

    async def on_post(self, req: Request, resp: Response, account_id: str = "") -> None:
        """Answer a ping to whomever it is; accept or refuse anything else."""
        if self._platform.ping is not None and _is_form(req):
            await self._on_form(req, resp)
        else:
            await super().on_post(req, resp, account_id)

    async def _on_form(self, req: Request, resp: Response) -> None:
        # Unsigned, so a stranger's: nothing is looked up, counted for an account or kept.
        started = time.perf_counter()
        code = "ping"
        try:
            body = await read_body(req, _MAX_PING_BYTES)
            if self._platform.ping is None or not self._platform.ping.fullmatch(body):
                raise as_error(rules.Refusal(415, "unsupported_media_type", rules.NOT_JSON))
            _tell_noted(resp, "ping")
        except ApiError as error:
            write_error(resp, error)
            code = error.code
        self._metrics.webhook(code, time.perf_counter() - started)

    async def _accept(self, req: Request, resp: Response, attempt: Attempt, signer: Signer) -> None:
        platform = self._platform
        try:
            rules.check_form(req.content_type, req.get_header("Content-Encoding"), None)
        except rules.Refusal as refusal:
            raise as_error(refusal) from None
        topic = platform.topics.get(req.get_header(platform.topic) or "")
        if platform.test is not None and req.get_header(platform.test) == "true":
            found: Note | None = "test"
        elif topic is None:
            found = "topic_not_taken"
        else:
            found = await self._take(req, attempt, signer, topic)
        attempt.note = found
        if found is None:
            tell_success(req, resp, attempt)
        else:
            _tell_noted(resp, found)

    async def _take(
        self, req: Request, attempt: Attempt, signer: Signer, topic: Topic
    ) -> Note | None:
        platform = self._platform
        said = self._read(attempt.body, req.get_header(platform.shop) or "")
        id_ = becoming.order_id(platform, signer.account_id, said, is_test=signer.is_test)
        attempt.order_id = str(id_)
        made = becoming.event_of(id_, topic, said, signer.account_id, is_test=signer.is_test)
        if isinstance(made, str):
            return made
        event, message_id = made
        now = datetime.fromtimestamp(attempt.at, UTC)
        message = message_for(
            event,
            source=SOURCE,
            correlation_id=id_,
            message_id=message_id,
            # A stamp from the future would win against every later one.
            time=now if said.at is None else min(said.at, now),
            traceparent=traceparent(req),
        )
        try:
            decode(message.type, message.body)
        except msgspec.DecodeError as error:
            # Whoever consumes it would refuse it, when its sender has long had a 201.
            raise ApiError(400, "invalid_body", f"The order cannot be recorded: {error}") from None
        attempt.event_id, attempt.event_type = message.message_id, message.type
        await self._acceptor.accept(message)
        return None if said.email else "no_email_address"

    def _read(self, body: bytes, shop: str) -> Said:
        try:
            order = self._decoder.decode(body)
        except (ValueError, RecursionError, OverflowError):
            try:
                order = read_json(body, self._platform.order)
            except InvalidValueError as error:
                raise invalid("invalid_body", error) from None
        return self._platform.read(order, shop)


def _tell_noted(resp: Response, note: Note) -> None:
    resp.status = falcon.HTTP_200
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(Noted(note=note, message=becoming.SENTENCES[note]))


def _is_form(req: Request) -> bool:
    return (req.content_type or "").partition(";")[0].strip().lower() == _FORM
