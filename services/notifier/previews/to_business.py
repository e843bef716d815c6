"""Examples of the emails to a business about its account."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

from shared.bus.contract import events
from shared.bus.contract.events import AccountChanged, Event, OrderNotTaken
from shared.languages.language import Language

NOBODY = UUID(int=0)
HERE = "192.0.2.7"  # RFC 5737: for documentation
NUMBER = "A-1001"
ELSEWHERE = "help@shop.example"
KEY = f"whpk_{'A' * 43}="
Made = Callable[[dict[str, Any], Language], Event]


def _made(type_: type[Event], **more: Any) -> Made:
    return lambda account, _: type_(**account, **more)


def _until(type_: type[Event], name: str = "expires_at", **more: Any) -> Made:
    """Return a maker of a fact that ends in two weeks."""

    def made(account: dict[str, Any], _: Language) -> Event:
        ends = (datetime.now(UTC) + timedelta(days=14)).replace(microsecond=0)
        return type_(**account, **{name: ends}, **more)

    return made


def _decided(type_: type[Event], *, has_reason: bool = True) -> Made:
    def made(account: dict[str, Any], say: Language) -> Event:
        reason = {"reason": say("pages.sample.kyc")} if has_reason else {}
        return type_(**account, application_id=NOBODY, decided_by="", **reason)

    return made


def _rotated(account: dict[str, Any], say: Language) -> Event:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=14)
    return _until(
        events.SecretRotated,
        secret_id=NOBODY,
        previous_secret_id=NOBODY,
        previous_valid_until=ends,
        cause="scheduled",
    )(account, say)


def _changed(what: str) -> Made:
    def made(account: dict[str, Any], say: Language) -> Event:
        reason = say("pages.sample.kyc") if what == "blocked" else ""
        value = {"display_name_changed": account["company_name"], "reply_to_changed": ELSEWHERE}
        return AccountChanged(
            **account,
            what=what,  # type: ignore[arg-type]
            address=HERE,
            reason=reason,
            value=value.get(what, ""),
        )

    return made


def _refused(account: dict[str, Any], _: Language) -> Event:
    one = events.RefusedRecipient(
        address="customer@shop.example", order_id=NOBODY, response="550 5.1.1 No such user"
    )
    return events.OrderRecipientsRefused(**account, recipients=(one,), total=1)


def _whats(type_: type[Event]) -> tuple[str, ...]:
    return get_args(type_.__annotations__["what"])


SAMPLES: Mapping[str, Made] = {
    "one_time_code": _until(events.AccountOtpRequested, code_id=NOBODY, sealed_code=b""),
    "signed_in": _made(events.AccountSignedIn, address=HERE, is_new_place=True),
    **{what: _changed(what) for what in _whats(AccountChanged)},
    "kyc_received": _made(
        events.KycSubmitted, application_id=NOBODY, business_registration_number="RC-1"
    ),
    "kyc_approved": _decided(events.KycApproved, has_reason=False),
    "kyc_asked": _decided(events.KycInformationRequested),
    "kyc_rejected": _decided(events.KycRejected),
    "kyc_revoked": _decided(events.KycRevoked),
    "secret_issued": _until(events.SecretIssued, secret_id=NOBODY),
    "secret_rotated": _rotated,
    "secret_shown": _made(events.SecretShown, secret_id=NOBODY, address=HERE),
    "secret_given": _made(
        events.SecretGiven, platform="shopify", shop="", secret_id=NOBODY, address=HERE
    ),
    "secret_expiring": _until(events.SecretExpiring, secret_id=NOBODY),
    "secret_revoked": _made(events.SecretRevoked, secret_ids=(NOBODY,), reason=""),
    "secret_key_added": _made(events.SecretKeyAdded, key_id=NOBODY, public_key=KEY, address=HERE),
    "secret_key_removed": _made(
        events.SecretKeyRemoved,
        key_id=NOBODY,
        public_key=KEY,
        address=HERE,
        secret_ids=(NOBODY,),
    ),
    "allowlist_changed": _made(
        events.WebhookAllowlistChanged, address=HERE, allowed_networks=("203.0.113.0/24",)
    ),
    **{
        f"not_taken_{what}": _made(
            OrderNotTaken, what=what, order_id=NOBODY, event_id=NOBODY, order_number=NUMBER
        )
        for what in _whats(OrderNotTaken)
    },
    "recipients_refused": _refused,
}
"""Every email to a business, by name; one for each kind of facts with kinds."""
