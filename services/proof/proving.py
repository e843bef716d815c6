"""One proof: an order is signed, sent, recorded and emailed."""

import json
import time
from collections.abc import Callable
from datetime import datetime

import httpx

from services.proof.business import Business, Secret, UnprovedError, describe
from services.proof.sink import Sink
from shared.ids import new_id
from shared.security import sender_signing
from shared.synthetic import DOMAIN

WAY_SECONDS = 30.0
"""The time an order has, from sending to its email."""
POLL_SECONDS = 0.25

Signed = tuple[str, dict[str, str]]


def _by_key(secret: Secret, body: bytes, _: float) -> Signed:
    return "/webhooks/orders/", sender_signing.api_key_headers(secret.key, body)


def _standard(secret: Secret, body: bytes, now: float) -> Signed:
    headers = sender_signing.standard_headers(secret.standard, str(new_id()), now, body)
    return f"/webhooks/{secret.account_id}/orders/", headers


SCHEMES: dict[str, Callable[[Secret, bytes, float], Signed]] = {
    "x-api-key": _by_key,
    "standard-webhooks": _standard,
}
"""By a scheme's name, the function that returns the path and headers of a signed order."""


def prove(
    scheme: str, http: httpx.Client, business: Business, sink: Sink, seconds: float = WAY_SECONDS
) -> None:
    """Send an order and wait for its email.

    Args:
        scheme: one of `SCHEMES`.
        http: a client of the API, with its prefix.
        business: the sender.
        sink: receives the email to its customer.
        seconds: the time the order has.

    Raises:
        UnprovedError: the order or its email did not arrive; `step` says where it ended.
    """
    try:
        secret = business.secret()
    except httpx.HTTPError as error:
        raise UnprovedError(
            "sign in", f"the API does not answer: {describe_error(error)}"
        ) from None
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
            raise UnprovedError("accepted", f"its order was answered {describe(answer)}")
        order_id = str(answer.json()["order_id"])
        while not business.has(order_id):
            if time.monotonic() > deadline:
                raise UnprovedError("recorded", f"order {order_id} was accepted and not recorded")
            time.sleep(POLL_SECONDS)
    except httpx.HTTPError as error:
        raise UnprovedError(
            "accepted", f"the API does not answer: {describe_error(error)}"
        ) from None
    if sink.wait(recipient, deadline - time.monotonic()) is None:
        raise UnprovedError("emailed", f"order {order_id} was recorded and its email did not come")


def heartbeat_state(proved_at: datetime | None, error: UnprovedError | None) -> dict[str, object]:
    """Return a scheme's state for the heartbeat.

    Args:
        proved_at: when an order last arrived; None if none has since the start.
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


def describe_error(error: Exception) -> str:
    """Return an exception as one line of at most 200 characters."""
    return f"{type(error).__name__}: {error}"[:200]
