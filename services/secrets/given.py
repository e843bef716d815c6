"""Secrets that a platform creates and a business gives us, replaces and removes.

They are rows beside ours, sealed the same way, so the end of an approval revokes them in the same
transaction and workers learn of it the same way. They do not expire.
"""

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.secrets import SOURCE, rotation, usage
from shared.bus import outbox
from shared.bus.contract.events import OptionalLine, SecretGiven, of_account
from shared.db.models import Account, WebhookSecret
from shared.db.session import database_time
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED
from shared.ids import new_id
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError

MAX_SHOPS = 10
OVERLAP = timedelta(hours=24)
"""How long a replaced secret stays valid: platforms retry failed deliveries for hours."""
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
# Shopify's have 32 or 64 hexadecimal digits, some with a prefix.
Given = Annotated[
    str,
    msgspec.Meta(
        min_length=16,
        max_length=200,
        pattern=r"^[\x21-\x7e]+(?![\s\S])",
        description="16 to 200 visible ASCII characters, without spaces",
    ),
]


class GivenSecret(msgspec.Struct, kw_only=True):
    """The secret that the platform shows; `shop` distinguishes those of several shops.

    The previous one stays valid for another day, or ends now with `revoke_previous`. With `is_test`
    it is a development shop's: its orders are test orders, which are mailed only to you.
    """

    secret: Given
    shop: OptionalLine = ""
    is_test: bool = False
    revoke_previous: bool = False


class OfShop(msgspec.Struct, kw_only=True):
    """The shop whose secrets are meant."""

    shop: OptionalLine = ""


class GivenView(msgspec.Struct, kw_only=True):
    """A given secret, which is never shown again."""

    id: UUID
    shop: str
    is_test: bool
    given_at: datetime
    valid_until: datetime | None
    last_used_at: datetime | None


class GivenList(msgspec.Struct, kw_only=True):
    """The valid secrets of one platform, newest first; a replaced one has a `valid_until`."""

    results: list[GivenView]


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the valid secrets."""
    return _list(session, call.caller, _platform(call.path))


def give(session: Session, call: Call[GivenSecret, None]) -> Answer:
    """Store a secret, or replace one; every ingress worker has it within a second."""
    platform, body = _platform(call.path), call.body
    account = rotation.locked_account(session, call.caller)
    at = database_time(session)
    live = session.scalars(_live(account.id, platform, at)).all()
    active = [secret for secret in live if secret.state == "active"]
    previous = next((secret for secret in active if secret.shop == body.shop), None)
    other_mode = [one for one in live if one.is_test != body.is_test and _is(one, body.secret)]
    if any(one.shop != body.shop for one in other_mode):
        raise ApiError(409, *_BOTH_MODES)
    is_same = previous is not None and _is(previous, body.secret)
    # The same secret in the other mode ends now, and no other with it.
    ended = [s for s in live if s.shop == body.shop] if body.revoke_previous else other_mode
    if previous is not None and is_same and previous not in other_mode:
        _end(session, account, platform, [one for one in ended if one is not previous], at)
        return _list(session, account.id, platform)
    if previous is None and len(active) >= MAX_SHOPS:
        raise ApiError(409, *_TOO_MANY_SHOPS)
    if wait := rotation.wait_for_next(session, account.id, platform):
        raise ApiError(429, *_TOO_MANY, headers={"Retry-After": str(wait)})
    revoked = tuple(_revoke(session, ended, at))
    is_retiring = previous is not None and previous not in ended
    if previous is not None and is_retiring:
        previous.state, previous.replaced_at = "retiring", at
        previous.expires_at = at + OVERLAP
    session.flush()
    secret_id = new_id()
    session.add(
        WebhookSecret(
            id=secret_id,
            account_id=account.id,
            platform=platform,
            shop=body.shop,
            is_test=body.is_test,
            key_hash=webhook_keys.random_hash(),
            sealed=webhook_keys.seal(body.secret.encode(), secret_id),
            state="active",
            issued_at=at,
            expires_at=NEVER,
        )
    )
    session.flush()
    fact = SecretGiven(
        **of_account(account),
        platform=platform,
        shop=body.shop,
        secret_id=secret_id,
        address=call.address,
        previous_valid_until=at + OVERLAP if is_retiring else None,
        revoked_ids=revoked,
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return _list(session, account.id, platform)


def remove(session: Session, call: Call[None, OfShop]) -> Answer:
    """Revoke a shop's secrets."""
    platform = _platform(call.path)
    rotation.lock(session, call.caller)
    account = session.get_one(Account, call.caller)
    at = database_time(session)
    live = session.scalars(_live(account.id, platform, at)).all()
    if not _end(session, account, platform, [s for s in live if s.shop == call.query.shop], at):
        raise ApiError(404, *_NONE)
    return Answer(204)


def _end(
    session: Session, account: Account, platform: str, secrets: list[WebhookSecret], at: datetime
) -> bool:
    """Revoke secrets and report it; returns whether there were any."""
    revoked = _revoke(session, secrets, at)
    if revoked:
        title = webhook_keys.GIVEN_BY[platform]
        reason = f"You removed the secret of {title}."
        rotation.add_revoked(session, account, revoked, reason, "removed")
    return bool(revoked)


def _list(session: Session, account_id: UUID, platform: str) -> Answer:
    at = database_time(session)
    use = usage.of_account(session, account_id, at)
    return Answer(
        200,
        GivenList(
            results=[
                GivenView(
                    id=secret.id,
                    shop=secret.shop,
                    is_test=secret.is_test,
                    given_at=secret.issued_at,
                    valid_until=None if secret.state == "active" else secret.expires_at,
                    last_used_at=use.get(secret.id, usage.UNUSED).last_used_at,
                )
                for secret in session.scalars(_live(account_id, platform, at))
            ]
        ),
    )


def _live(account_id: UUID, platform: str, at: datetime) -> Select[WebhookSecret]:
    return (
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, WebhookSecret.platform == platform)
        .where(WebhookSecret.state.in_(("active", "retiring")), WebhookSecret.expires_at > at)
        .order_by(WebhookSecret.issued_at.desc(), WebhookSecret.id.desc())
        .execution_options(populate_existing=True)
    )


def _revoke(session: Session, secrets: list[WebhookSecret], at: datetime) -> list[UUID]:
    for secret in secrets:
        secret.state, secret.revoked_at = "revoked", at
    session.flush()
    return [secret.id for secret in secrets]


def _is(secret: WebhookSecret, given: str) -> bool:
    """Return whether it is that secret; False if it cannot be opened, so it can be replaced."""
    try:
        raw = webhook_keys.unseal(secret.sealed, secret.id)
    except CannotOpenError:
        return False
    return hmac.compare_digest(raw, given.encode())


def _platform(path: Mapping[str, str]) -> str:
    name = path["platform"]
    if name not in webhook_keys.GIVEN_BY:
        raise ApiError(404, *_UNKNOWN)
    return name


_UNKNOWN = (
    "platform_unknown",
    "No platform of this name gives us a secret: "
    f"{', '.join(webhook_keys.GIVEN_BY)}. Others sign with yours.",
)
_NONE = ("given_secret_not_found", "You have given us no secret of this shop that works.")
_TOO_MANY_SHOPS = (
    "too_many_shops",
    f"You have given us the secrets of {MAX_SHOPS} shops. Remove one that is not used.",
)
_BOTH_MODES = (
    "secret_of_both_modes",
    "You gave us this secret for another shop, of which one is a development shop and one is not: "
    "what both sign could not be told apart.",
)
_TOO_MANY = (
    "too_many_secrets",
    f"You gave us {rotation.MAX_A_DAY} secrets within 24 hours. Come back when Retry-After says.",
)
_PATH = "/webhook/secret/{platform}/"

ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        handler=show,
        summary="The secrets of a platform that you gave us",
        answers={200: GivenList},
        errors=((404, *_UNKNOWN),),
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="PUT",
        path=_PATH,
        handler=give,
        summary="Give us the secret that a platform signs with",
        body=GivenSecret,
        answers={200: GivenList},
        errors=(
            KYC_REQUIRED,
            (404, *_UNKNOWN),
            (409, *_TOO_MANY_SHOPS),
            (409, *_BOTH_MODES),
            (429, *_TOO_MANY),
        ),
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="DELETE",
        path=_PATH,
        handler=remove,
        summary="Remove a secret that you gave us; it stops working at once",
        query=OfShop,
        answers={204: None},
        errors=((404, *_UNKNOWN), (404, *_NONE)),
        bearer=True,
        tag="Webhook secret",
    ),
)
