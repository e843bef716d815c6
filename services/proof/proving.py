"""One order on its way: signed and sent, recorded, emailed."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import datetime

import httpx

from services.proof.business import Business, Secret, UnprovedError, told
from services.proof.sink import Sink
from shared.ids import new_id
from shared.security import standard_signing
from shared.synthetic import DOMAIN

WAY_SECONDS = 30.0
"""How long an order may be on its way."""
LOOK_SECONDS = 0.25

Signed = tuple[str, dict[str, str]]


def _by_key(secret: Secret, body: bytes, _: float) -> Signed:
    signature = hmac.new(secret.key.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-API-Key": secret.key, "X-Webhook-Signature": signature}
    return "/webhooks/orders/", headers


def _standard(secret: Secret, body: bytes, now: float) -> Signed:
    headers = standard_signing.headers(secret.standard, str(new_id()), now, body)
    return f"/webhooks/{secret.account_id}/orders/", headers


SCHEMES: dict[str, Callable[[Secret, bytes, float], Signed]] = {
    "x-api-key": _by_key,
    "standard-webhooks": _standard,
}
"""How an order is signed, by the scheme's name."""


def prove(
    scheme: str, http: httpx.Client, business: Business, sink: Sink, seconds: float = WAY_SECONDS
) -> None:
    """Send an order the whole way.

    Args:
        scheme: one of `SCHEMES`.
        http: a client of the API, with its prefix.
        business: who sends it.
        sink: where the email to its customer comes.
        seconds: how long it may be on its way.

    Raises:
        UnprovedError: it did not come through; `step` says where it ended.
    """
    try:
        secret = business.secret()
    except httpx.HTTPError as error:
        raise UnprovedError("sign in", f"the API does not answer: {_words(error)}") from None
    recipient = f"{scheme}-{new_id()}@{DOMAIN}"
    customer = {"name": "Nobody", "email": recipient}
    body = json.dumps(
        {"customer_details": customer, "item_summary": "a proof", "address": "nowhere"}
    ).encode()
    path, headers = SCHEMES[scheme](secret, body, time.time())
    deadline = time.monotonic() + seconds
    try:
        answer = http.post(
            path, content=body, headers={"Content-Type": "application/json"} | headers
        )
        if answer.status_code != 201:
            raise UnprovedError("accepted", f"its order was answered {told(answer)}")
        order_id = str(answer.json()["order_id"])
        while not business.has(order_id):
            if time.monotonic() > deadline:
                raise UnprovedError("recorded", f"order {order_id} was accepted and not recorded")
            time.sleep(LOOK_SECONDS)
    except httpx.HTTPError as error:
        raise UnprovedError("accepted", f"the API does not answer: {_words(error)}") from None
    if sink.wait(recipient, deadline - time.monotonic()) is None:
        raise UnprovedError("emailed", f"order {order_id} was recorded and its email did not come")


def said(proved_at: datetime | None, error: UnprovedError | None) -> dict[str, object]:
    """How a scheme stands, for the heartbeat.

    Args:
        proved_at: when an order last came through; None when none has since the start.
        error: why the last one did not.
    """
    if error is None:
        state = "proved" if proved_at else "starting"
    else:
        state = "waiting" if error.step == "approval" else "unproved"
    return {
        "state": state,
        "reason": str(error or ""),
        "reached": proved_at.isoformat() if proved_at else None,
    }


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
