"""One fact of every type that calls for an email."""

from datetime import UTC, datetime
from uuid import UUID

from shared.bus.contract import events
from shared.bus.contract.events import TrackingStatus
from shared.ids import new_id
from shared.security.encryption import code_sealer

CODE = "042137"
UNTIL = datetime(2099, 3, 1, 14, 5, tzinfo=UTC)
COMPANY = "Kettle <b>&</b> Co"
CUSTOMER = "Zoë O'Neil"
ACCOUNT = {
    "account_id": UUID(int=1),
    "company_name": COMPANY,
    "email": "owner@kettle.example",
}
KYC = {**ACCOUNT, "application_id": UUID(int=2)}
DECIDED = {**KYC, "decided_by": "olivia@fellow"}
SECRET = {**ACCOUNT, "secret_id": UUID(int=3), "expires_at": UNTIL}
PUBLIC_KEY = {
    **ACCOUNT,
    "key_id": UUID(int=6),
    "public_key": "whpk_3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "address": "192.0.2.7",
}
ORDER = {
    "order_id": UUID(int=4),
    "account_id": UUID(int=1),
    "company_name": COMPANY,
    "customer_name": CUSTOMER,
    "customer_email": "zoe@shop.example",
    "item_summary": "2 × <i>kettle</i>",
}


def _otp() -> events.AccountOtpRequested:
    code_id = new_id()
    sealed = code_sealer().seal(CODE.encode(), f"otp:{code_id}")
    return events.AccountOtpRequested(
        **(ACCOUNT | {"company_name": ""}), code_id=code_id, sealed_code=sealed, expires_at=UNTIL
    )


FACTS = {
    "one_time_code": _otp(),
    "signed_in": events.AccountSignedIn(**ACCOUNT, address="192.0.2.7", is_new_place=True),
    "account_changed": events.AccountChanged(
        **ACCOUNT, what="blocked", by="ops", reason="The <b>number</b> is not known."
    ),
    "secret_shown": events.SecretShown(**ACCOUNT, secret_id=UUID(int=3), address="192.0.2.7"),
    "secret_given": events.SecretGiven(
        **ACCOUNT,
        platform="shopify",
        shop="<b>kettles</b>.myshopify.com",
        secret_id=UUID(int=3),
        address="192.0.2.7",
        previous_valid_until=UNTIL,
    ),
    "secret_key_added": events.SecretKeyAdded(**PUBLIC_KEY),
    "secret_key_removed": events.SecretKeyRemoved(**PUBLIC_KEY, secret_ids=(UUID(int=6),)),
    "allowlist_changed": events.WebhookAllowlistChanged(
        **ACCOUNT, address="192.0.2.7", allowed_networks=("203.0.113.0/24",)
    ),
    "kyc_received": events.KycSubmitted(**KYC, business_registration_number="RC-1"),
    "kyc_approved": events.KycApproved(**DECIDED),
    "kyc_rejected": events.KycRejected(**DECIDED, reason="The <number> is not known."),
    "kyc_asked": events.KycInformationRequested(
        **DECIDED, reason="Which <number> is it?\nSend the register's page."
    ),
    "kyc_revoked": events.KycRevoked(**DECIDED, reason="Complaints."),
    "secret_issued": events.SecretIssued(**SECRET),
    "secret_rotated": events.SecretRotated(
        **SECRET,
        previous_secret_id=UUID(int=5),
        previous_valid_until=UNTIL,
        cause="scheduled",
    ),
    "secret_expiring": events.SecretExpiring(**SECRET),
    "secret_revoked": events.SecretRevoked(
        **ACCOUNT, secret_ids=(UUID(int=3),), reason="KYC revoked"
    ),
    "not_taken": events.OrderNotTaken(
        **ACCOUNT, what="update_given_up", order_id=UUID(int=4), event_id=UUID(int=6)
    ),
    "recipients_refused": events.OrderRecipientsRefused(
        **ACCOUNT,
        recipients=(
            events.RefusedRecipient(
                address="zoe@shop.example", order_id=UUID(int=4), response="550 5.1.1 <i>no</i>"
            ),
        ),
        total=3,
    ),
    "order_received": events.OrderRecorded(
        **ORDER, address="12 Marina Road\nLagos", tracking_status=TrackingStatus.PENDING
    ),
    "order_status": events.OrderStatusRecorded(
        **ORDER,
        tracking_status=TrackingStatus.OUT_FOR_DELIVERY,
        previous_status=TrackingStatus.PENDING,
        note="With Bola & van",
    ),
    "order_cancelled": events.OrderCancellationRecorded(
        **ORDER, tracking_status=TrackingStatus.CANCELLED, reason="Out of <stock>"
    ),
}
"""By the name of the template."""
