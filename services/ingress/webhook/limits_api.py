"""`GET /webhook/limits/`: how much a business may send."""

from typing import Literal

import msgspec
from sqlalchemy.orm import Session

from shared.config.loading import settings
from shared.db.models import WebhookPolicy
from shared.http.route import Answer, Call, Route


class WebhookLimits(msgspec.Struct, kw_only=True):
    """Orders and updates a second that each of `workers` takes, and the bytes of a body.

    Beyond the rate the answer is 429 with `Retry-After`. `set_by` is `operator` where the rate was
    set for your account alone. `workers` counts those of the process that answers; there may be
    more.
    """

    rate_per_second: int
    set_by: Literal["default", "operator"]
    workers: int
    max_body_bytes: int


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the account's current limits."""
    config = settings()
    policy = session.get(WebhookPolicy, call.caller)
    own = policy.rate_per_second if policy else None
    return Answer(
        200,
        WebhookLimits(
            rate_per_second=config.account_rate_per_second if own is None else own,
            set_by="default" if own is None else "operator",
            workers=config.web_concurrency,
            max_body_bytes=config.max_body_bytes,
        ),
    )


ROUTES = (
    Route(
        method="GET",
        path="/webhook/limits/",
        handler=show,
        summary="How much you may send",
        answers={200: WebhookLimits},
        bearer=True,
        tag="Webhooks",
    ),
)
