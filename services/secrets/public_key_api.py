"""The HTTP API of the public keys (Ed25519) of businesses that sign by `v1a`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.secrets import SOURCE, public_keys, rotation, usage
from shared.bus import outbox
from shared.bus.contract.events import SecretKeyAdded, SecretKeyRemoved, of_account
from shared.db.models import Account, WebhookPublicKey
from shared.db.session import database_time
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED
from shared.ids import new_id
from shared.security.public_keys import PublicKeyError, encode, parse


class NewPublicKey(msgspec.Struct, kw_only=True):
    """A public key to sign by: `whpk_` and the base64 of its 32 bytes."""

    public_key: Annotated[str, msgspec.Meta(min_length=1, max_length=4_000)]


class PublicKey(msgspec.Struct, kw_only=True):
    """A public key that signs for you until you remove it."""

    id: UUID
    public_key: str
    added_at: datetime
    last_used_at: datetime | None
    share_of_last_day: float


class PublicKeyList(msgspec.Struct, kw_only=True):
    """Your public keys, in the order in which they were added."""

    public_keys: list[PublicKey]


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the account's public keys."""
    use = usage.of_account(session, call.caller, database_time(session))
    keys = public_keys.live(session, call.caller)
    return Answer(200, PublicKeyList(public_keys=[_view(key, use.get(key.id)) for key in keys]))


def add(session: Session, call: Call[NewPublicKey, None]) -> Answer:
    """Add a key; every ingress worker has it within a second, and the owner gets an email."""
    try:
        raw = parse(call.body.public_key.strip())
    except PublicKeyError as error:
        raise ApiError(400, _INVALID[1], str(error)) from None
    account = rotation.locked_account(session, call.caller)
    held = public_keys.live(session, account.id)
    if any(key.public_key == raw for key in held):
        raise ApiError(*_KNOWN)
    if len(held) >= public_keys.MOST:
        raise ApiError(*_TOO_MANY)
    if public_keys.added_lately(session, account.id) >= public_keys.MAX_A_DAY:
        raise ApiError(*_TOO_OFTEN, headers={"Retry-After": "3600"})
    key = WebhookPublicKey(
        id=new_id(),
        account_id=account.id,
        public_key=raw,
        state="active",
        added_at=database_time(session),
    )
    session.add(key)
    session.flush()
    fact = SecretKeyAdded(**_common(account, key, call.address))
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(201, _view(key, None))


def remove(session: Session, call: Call[None, None]) -> Answer:
    """Revoke a key; the owner gets an email."""
    try:
        key_id = UUID(call.path["key_id"])
    except ValueError:
        raise ApiError(*_NOT_FOUND) from None
    rotation.lock(session, call.caller)
    key = next((k for k in public_keys.live(session, call.caller) if k.id == key_id), None)
    if key is None:
        raise ApiError(*_NOT_FOUND)
    public_keys.revoke(session, call.caller, database_time(session), key_id)
    account = session.get_one(Account, call.caller)
    fact = SecretKeyRemoved(**_common(account, key, call.address), secret_ids=(key_id,))
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(204)


def _common(account: Account, key: WebhookPublicKey, address: str) -> dict[str, Any]:
    of_key = {"key_id": key.id, "public_key": encode(key.public_key), "address": address}
    return of_account(account) | of_key


def _view(key: WebhookPublicKey, use: usage.SecretUse | None) -> PublicKey:
    found = use or usage.UNUSED
    return PublicKey(
        id=key.id,
        public_key=encode(key.public_key),
        added_at=key.added_at,
        last_used_at=found.last_used_at,
        share_of_last_day=found.share_of_last_day,
    )


_INVALID = (400, "invalid_public_key", "This is no public key that may be used, and says why.")
_KNOWN = (409, "public_key_known", "You have added this public key already.")
_TOO_MANY = (
    409,
    "too_many_public_keys",
    f"You have {public_keys.MOST} public keys, which is all that you may have: remove one first.",
)
_TOO_OFTEN = (
    429,
    "too_many_public_keys_a_day",
    f"You added {public_keys.MAX_A_DAY} public keys within 24 hours.",
)
_NOT_FOUND = (404, "public_key_not_found", "You have no such public key, or it was removed.")

ROUTES = (
    Route(
        method="GET",
        path="/webhook/public-keys/",
        handler=show,
        summary="The public keys that sign for you",
        answers={200: PublicKeyList},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="POST",
        path="/webhook/public-keys/",
        handler=add,
        summary="Add a public key (Ed25519) to sign by Standard Webhooks' v1a",
        body=NewPublicKey,
        answers={201: PublicKey},
        errors=(_INVALID, KYC_REQUIRED, _KNOWN, _TOO_MANY, _TOO_OFTEN),
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="DELETE",
        path="/webhook/public-keys/{key_id}/",
        handler=remove,
        summary="Remove a public key; it stops working at once",
        answers={204: None},
        errors=(_NOT_FOUND,),
        bearer=True,
        tag="Webhook secret",
    ),
)
