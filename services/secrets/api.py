"""The HTTP API of a business's webhook secrets."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.secrets import SOURCE, given, policies, public_key_api, rotation, usage
from services.secrets.usage import SecretUse
from shared.bus import outbox
from shared.bus.contract.events import SecretShown, of_account
from shared.db.models import Account, WebhookSecret
from shared.db.session import database_time
from shared.http.errors import ApiError, unavailable
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED, is_approved, not_approved
from shared.ids import derived_id
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError
from shared.security.networks import network_of


class Previous(msgspec.Struct, kw_only=True):
    """A replaced secret, which works until `valid_until`."""

    id: UUID
    valid_until: datetime
    last_used_at: datetime | None
    share_of_last_day: float


class Secret(msgspec.Struct, kw_only=True):
    """The secret to sign with: `secret_key` by `X-API-Key`, the other by Standard Webhooks.

    `retiring` has the replaced secrets that still work, the last to end first; that is `previous`.
    """

    id: UUID
    secret_key: str
    signing_secret: str
    is_active: bool
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    share_of_last_day: float
    previous: Previous | None
    retiring: list[Previous]


class Replacement(msgspec.Struct, kw_only=True):
    """How to replace: with `revoke_previous` the earlier secrets stop working immediately."""

    revoke_previous: bool = False


class Replaced(msgspec.Struct, kw_only=True):
    """The new secret, in both forms."""

    secret_key: str
    signing_secret: str
    message: str
    status: str
    expires_at: datetime


class SecretState(msgspec.Struct, kw_only=True):
    """Whether your secrets work now, and until when; no email is sent about this request."""

    is_active: bool
    expires_at: datetime | None
    test_is_active: bool
    test_expires_at: datetime | None


def show(session: Session, call: Call[None, None], *, is_test: bool = False) -> Answer:
    """Return the active secret; an expired one is replaced first."""
    now = database_time(session)
    secret = rotation.newest(session, call.caller, is_test=is_test)
    if secret is not None and rotation.has_ended(secret, now):
        account = rotation.locked_account(session, call.caller)
        secret = rotation.newest(session, account.id, is_test=is_test)
        if secret is not None and rotation.has_ended(secret, now):
            secret = rotation.rotate(session, account, "expired_use", is_test=is_test)
    elif not is_approved(session, call.caller):
        raise not_approved()
    if secret is None or secret.state != "active":
        if is_test:
            raise ApiError(*_NO_TEST_SECRET)
        raise ApiError(404, *_NOT_READY, headers={"Retry-After": "1"})
    replaced = session.scalars(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == call.caller, WebhookSecret.state == "retiring")
        .where(WebhookSecret.expires_at > now, rotation.ours(is_test=is_test))
        .order_by(WebhookSecret.expires_at.desc(), WebhookSecret.issued_at.desc())
    )
    use = usage.of_account(session, call.caller, now, is_test=is_test)
    retiring = [_previous(other, use) for other in replaced]
    _tell_shown(session, secret, call.address)
    return Answer(
        200,
        Secret(
            id=secret.id,
            **_forms(secret),
            is_active=True,
            created_at=secret.issued_at,
            expires_at=secret.expires_at,
            last_used_at=use.get(secret.id, usage.UNUSED).last_used_at,
            share_of_last_day=use.get(secret.id, usage.UNUSED).share_of_last_day,
            previous=retiring[0] if retiring else None,
            retiring=retiring,
        ),
    )


def _tell_shown(session: Session, secret: WebhookSecret, address: str) -> None:
    account = session.get_one(Account, secret.account_id)
    fact = SecretShown(
        **of_account(account), secret_id=secret.id, address=address, is_test=secret.is_test
    )
    # Programs fetch it at each start: the fact's id allows one email a day and network.
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    fact_id = derived_id(fact.TYPE, secret.id, network_of(address), day)
    outbox.add_fact(session, fact, account.id, source=SOURCE, message_id=fact_id, once=True)


def _previous(secret: WebhookSecret, use: Mapping[UUID, SecretUse]) -> Previous:
    found = use.get(secret.id, usage.UNUSED)
    return Previous(
        id=secret.id,
        valid_until=secret.expires_at,
        last_used_at=found.last_used_at,
        share_of_last_day=found.share_of_last_day,
    )


def replace(session: Session, call: Call[Replacement, None], *, is_test: bool = False) -> Answer:
    """Create a new secret. The previous one works until its expiry, unless revoked."""
    account = rotation.locked_account(session, call.caller)
    wait = rotation.wait_for_next(session, account.id, is_test=is_test)
    if wait:
        raise ApiError(429, *_TOO_MANY, headers={"Retry-After": str(wait)})
    is_first = rotation.active(session, account.id, is_test=is_test) is None
    secret = rotation.rotate(
        session,
        account,
        "business",
        revoke_previous=call.body.revoke_previous,
        is_test=is_test,
    )
    if is_first:
        message = "Webhook secret created."
    elif call.body.revoke_previous:
        message = "Webhook secret regenerated. The previous one no longer works."
    else:
        message = "Webhook secret regenerated. The previous one works until its own expiry."
    return Answer(
        201 if is_first else 200,
        Replaced(
            **_forms(secret),
            message=message,
            status="created" if is_first else "regenerated",
            expires_at=secret.expires_at,
        ),
    )


def end_test_mode(session: Session, call: Call[None, None]) -> Answer:
    """Revoke the test secrets; test orders stay until they are cleared."""
    rotation.lock(session, call.caller)
    rotation.end_test_mode(session, session.get_one(Account, call.caller))
    return Answer(204)


def show_state(session: Session, call: Call[None, None]) -> Answer:
    """Return whether the live and the test secret work now."""
    now = database_time(session)
    live = rotation.active(session, call.caller)
    test = rotation.active(session, call.caller, is_test=True)
    return Answer(
        200,
        SecretState(
            is_active=live is not None and not rotation.has_ended(live, now),
            expires_at=live.expires_at if live else None,
            test_is_active=test is not None and not rotation.has_ended(test, now),
            test_expires_at=test.expires_at if test else None,
        ),
    )


def _forms(secret: WebhookSecret) -> dict[str, str]:
    try:
        raw = webhook_keys.unseal(secret.sealed, secret.id)
    except CannotOpenError:
        raise unavailable(*_SEALED) from None
    return {
        "secret_key": webhook_keys.encode_key(raw),
        "signing_secret": webhook_keys.encode_standard(raw),
    }


_NOT_READY = (
    "secret_not_ready",
    "There is no active secret. After an approval one is made within a second; after a revocation "
    "make one by POST to this address.",
)
_SEALED = (
    "unavailable",
    "We cannot open your secret at present. Try again later, or make a new one by POST to this "
    "address.",
)
_NO_TEST_SECRET = (
    404,
    "no_test_secret",
    "There is no test secret: make one by POST to this address.",
)
_TOO_MANY = (
    "too_many_secrets",
    f"You had {rotation.MAX_A_DAY} secrets made within 24 hours. The newest one works: fetch it by "
    "GET from this address, or come back when Retry-After says.",
)

ROUTES = (
    *policies.ROUTES,
    *given.ROUTES,
    *public_key_api.ROUTES,
    Route(
        method="GET",
        path="/webhook/secret/state/",
        handler=show_state,
        summary="Whether your webhook secret works, without showing it",
        answers={200: SecretState},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="GET",
        path="/webhook/secret/",
        handler=show,
        summary="Your webhook secret",
        answers={200: Secret},
        errors=(KYC_REQUIRED, (404, *_NOT_READY), (503, *_SEALED)),
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="POST",
        path="/webhook/secret/",
        handler=replace,
        summary="Replace your webhook secret",
        body=Replacement,
        body_optional=True,
        answers={200: Replaced, 201: Replaced},
        errors=(KYC_REQUIRED, (429, *_TOO_MANY)),
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="GET",
        path="/webhook/test-secret/",
        handler=partial(show, is_test=True),
        summary="Your test secret: what it signs is mailed to you alone, and counts nowhere",
        answers={200: Secret},
        errors=(KYC_REQUIRED, _NO_TEST_SECRET, (503, *_SEALED)),
        bearer=True,
        tag="Test mode",
    ),
    Route(
        method="POST",
        path="/webhook/test-secret/",
        handler=partial(replace, is_test=True),
        summary="Make or replace your test secret",
        body=Replacement,
        body_optional=True,
        answers={200: Replaced, 201: Replaced},
        errors=(KYC_REQUIRED, (429, *_TOO_MANY)),
        bearer=True,
        tag="Test mode",
    ),
    Route(
        method="DELETE",
        path="/webhook/test-secret/",
        handler=end_test_mode,
        summary="Make your test secrets stop working, at once",
        answers={204: None},
        bearer=True,
        tag="Test mode",
    ),
)
