"""The HTTP side: whether a business has a secret that works, without showing it to anybody."""

from datetime import datetime

import msgspec
from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.db.models import WebhookSecret
from shared.db.session import database_time
from shared.http.route import Answer, Call, Route


class SecretState(msgspec.Struct, kw_only=True):
    """Whether a secret of ours works for you now, and until when; nobody is told that you asked."""

    is_active: bool
    expires_at: datetime | None
    test_is_active: bool
    test_expires_at: datetime | None


def show(session: Session, call: Call[None, None]) -> Answer:
    """Both of them, as they are at this moment."""
    now = database_time(session)
    live = rotation.active(session, call.caller)
    test = rotation.active(session, call.caller, is_test=True)
    return Answer(
        200,
        SecretState(
            is_active=_works(live, now),
            expires_at=live.expires_at if live else None,
            test_is_active=_works(test, now),
            test_expires_at=test.expires_at if test else None,
        ),
    )


def _works(secret: WebhookSecret | None, now: datetime) -> bool:
    return secret is not None and not rotation.has_ended(secret, now)


ROUTES = (
    Route(
        method="GET",
        path="/webhook/secret/state/",
        handler=show,
        summary="Whether your webhook secret works, without showing it",
        answers={200: SecretState},
        bearer=True,
        tag="Webhook secret",
    ),
)
