"""Every message on the bus as a msgspec Struct; decoding validates it.

Three kinds, by exchange:

* `intake`: orders and updates of senders. Published by the ingress.
* `commands`: requests to do something. Published by operators, the ingress and the CLI.
* `events`: facts, in the past tense. Written to the outbox with the rows that they are about, and
  published by the relay only.

To add one, write its Struct here and a handler in the service that cares. Topology, contracts and
documentation follow from the Struct.
"""

import re
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from shared.validation.email_addresses import with_ascii_domain
from shared.validation.normalisation import day_of, url_of
from shared.validation.reading import describe_faults

# The end of the text, in Python's regular expressions as in JSON Schema's (ECMA 262). Python's `$`
# also matches before a last line feed, and ECMA 262 has no `\Z`.
_END = r"(?![\s\S])"
# What may stand in one line: no control characters, so no header or log line can be forged. A
# pattern has words beside it, which are shown instead (shared/validation/phrases.py).
Line = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        pattern=rf"^[^\x00-\x1f\x7f]+{_END}",
        description="one line of 1 to 200 characters, without control characters",
    ),
]
OptionalLine = Annotated[
    str,
    msgspec.Meta(
        max_length=200,
        pattern=rf"^[^\x00-\x1f\x7f]*{_END}",
        description="one line of at most 200 characters, without control characters",
    ),
]
# Free text. PostgreSQL's text cannot hold a NUL, so it stops at the door and not after the 201.
LONGEST_TEXT = 4_000  # characters
Text = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=LONGEST_TEXT,
        pattern=rf"^[^\x00]+{_END}",
        description="text of 1 to 4,000 characters, without U+0000",
    ),
]
OptionalText = Annotated[
    str,
    msgspec.Meta(
        max_length=LONGEST_TEXT,
        pattern=rf"^[^\x00]*{_END}",
        description="text of at most 4,000 characters, without U+0000",
    ),
]
# RFC 5321, 4.5.3.1 bounds the length. The form is the HTML standard's valid address, with a dot in
# the domain.
EMAIL_PATTERN = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+" + _END
)
Email = Annotated[
    str,
    msgspec.Meta(
        max_length=254,
        pattern=EMAIL_PATTERN,
        description="an address that we can mail, such as zoe@shop.example (before the @ in ASCII)",
        examples=["zoe@shop.example"],
        extra={"normalise": with_ascii_domain},
    ),
]
# An identifier of others. A JSON number is accepted and read as its digits.
_REFERENCE = rf"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?{_END}"
Reference = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=100,
        pattern=_REFERENCE,
        description="a text of 1 to 100 characters, in quotes, without control characters",
        extra={"takes_whole_numbers": True},
    ),
]
OrderNumber = Annotated[Reference, msgspec.Meta(examples=["A-1001"])]
"""The sender's own number, unique among its orders; `shared.ids` derives the order's id from it."""
MetadataName = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=40,
        pattern=rf"^[^\x00-\x1f\x7f]+{_END}",
        description="1 to 40 characters, without control characters",
    ),
]
Metadata = Annotated[
    dict[MetadataName, OptionalLine],
    msgspec.Meta(
        max_length=20,
        description="an object of at most 20 members, each a text",
        examples=[{"branch": "Lekki"}],
    ),
]
"""Free data of the sender, stored with the order and returned unchanged."""
# A link for customers. Characters of RFC 3986 (2) only, others percent-encoded (2.1). No userinfo
# before an `@` (3.2.1), which would hide where a link leads.
TRACKING_URL_PATTERN = (
    r"^https://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?"
    rf"(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?{_END}"
)
TrackingUrl = Annotated[
    str,
    msgspec.Meta(
        max_length=2_000,
        pattern=TRACKING_URL_PATTERN,
        description="an absolute URL of at most 2,000 characters that begins with https://, "
        "percent-encoded and without a user's name",
        examples=["https://track.carrier.example/JD0146"],
        extra={"normalise": url_of, "empty_is_none": True},
    ),
]
# A day without a time, since the day of a time depends on the time zone.
Day = Annotated[
    date,
    msgspec.Meta(
        description="a day, such as 2026-12-03; of a time, the day that is written in it",
        examples=["2026-12-03"],
        extra={"normalise": day_of, "empty_is_none": True},
    ),
]
# UNSET is not encoded: an order without these looks as it did before they existed.
_EMPTY = {"empty_is_none": True}
Carrier = Annotated[Reference, msgspec.Meta(examples=["Swift Parcels"], extra=_EMPTY)] | UnsetType
TrackingNumber = Annotated[Reference, msgspec.Meta(examples=["JD0146"], extra=_EMPTY)] | UnsetType


class TrackingStatus(StrEnum):
    """The status of an order. `IN TRANSIT`, with a space or in lower case, is accepted too."""

    PENDING = "PENDING"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"

    @classmethod
    def _missing_(cls, value: object) -> "TrackingStatus | None":
        if not isinstance(value, str):
            return None
        name = re.sub(r"[\s-]+", "_", value.strip()).upper()
        return cls.__members__.get(name)


FINAL_STATUSES = frozenset({TrackingStatus.DELIVERED, TrackingStatus.CANCELLED})


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of every message's data."""

    TYPE: ClassVar[str] = ""
    EXCHANGE: ClassVar[str] = ""
    IS_TEST: ClassVar[bool] = False
    """Whether it is about a test order, of which only its business is notified."""
    OF_PLATFORM: ClassVar[bool] = False
    """Whether only the ingress makes it, from a platform's delivery; senders may not send it."""


class CustomerDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The customer, as the sender names them."""

    name: Annotated[Line, msgspec.Meta(examples=["Zoë Ade"])]
    email: Email
    phone: Annotated[OptionalLine, msgspec.Meta(examples=["+2348000000"])] = ""


class FormerId(msgspec.Struct, frozen=True, kw_only=True):
    """The id that earlier versions derived for a WooCommerce order, from its shop and number there.

    A reinstalled shop begins to count anew, so another order may have the same id: one that was
    accepted before `made_at`, the time at which the shop created this order.

    `spelled_id`: for a shop whose links may contain a language, the id that versions before 0049
    derived from the shop's address in this link.
    """

    order_id: UUID
    made_at: datetime
    spelled_id: UUID | UnsetType = UNSET


Former = FormerId | UnsetType
MadeAt = Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType
"""When a shop created an order, by the shop's clock."""


# --- intake: orders and updates of senders ---------------------------------------------------


class OrderCreated(Event, frozen=True, kw_only=True):
    """A sender has a new order."""

    TYPE: ClassVar[str] = "order.created"
    EXCHANGE: ClassVar[str] = "intake"

    order_id: UUID
    account_id: UUID
    customer_details: CustomerDetails
    item_summary: Annotated[Text, msgspec.Meta(examples=["2 x blue kettle"])]
    address: Annotated[Text, msgspec.Meta(examples=["12 Marina Road, Lagos"])]
    tracking_status: TrackingStatus = TrackingStatus.PENDING
    order_number: OrderNumber | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    carrier: Carrier = UNSET
    tracking_number: TrackingNumber = UNSET
    tracking_url: TrackingUrl | UnsetType = UNSET
    estimated_delivery: Day | UnsetType = UNSET
    former: Former = UNSET


class OrderStatusChanged(Event, frozen=True, kw_only=True):
    """A sender's update of an order, named by its id or its number."""

    TYPE: ClassVar[str] = "order.status_changed"
    EXCHANGE: ClassVar[str] = "intake"

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET
    tracking_status: Annotated[TrackingStatus, msgspec.Meta(examples=["OUT_FOR_DELIVERY"])]
    note: Annotated[OptionalText, msgspec.Meta(examples=["Left the depot."])] = ""
    carrier: Carrier = UNSET
    tracking_number: TrackingNumber = UNSET
    tracking_url: TrackingUrl | UnsetType = UNSET
    estimated_delivery: Day | UnsetType = UNSET


class OrderCancelled(Event, frozen=True, kw_only=True):
    """A sender has cancelled an order, named by its id or its number."""

    TYPE: ClassVar[str] = "order.cancelled"
    EXCHANGE: ClassVar[str] = "intake"

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET
    reason: Annotated[OptionalText, msgspec.Meta(examples=["Out of stock."])] = ""
    former: Former = UNSET
    made_at: MadeAt = UNSET


class OrderUnaddressed(Event, frozen=True, kw_only=True):
    """An order in a platform's delivery has no email address that can be mailed.

    Made by the ingress; senders' own orders need an address. A new order is awaited: an
    `OrderPlaced` with an address creates it.

    `is_change`: the order is not new, and is not awaited. If it was recorded, it keeps its
    customer, and `tracking_status` counts.
    """

    TYPE: ClassVar[str] = "order.unaddressed"
    EXCHANGE: ClassVar[str] = "intake"
    OF_PLATFORM: ClassVar[bool] = True

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET
    is_change: bool = False
    tracking_status: TrackingStatus | UnsetType = UNSET
    carrier: Carrier = UNSET
    tracking_number: TrackingNumber = UNSET
    tracking_url: TrackingUrl | UnsetType = UNSET
    former: Former = UNSET
    made_at: MadeAt = UNSET


class OrderNotPlaced(Event, frozen=True, kw_only=True):
    """An order in a platform's delivery is a draft, unpaid, failed or cancelled.

    It is awaited: an `OrderPlaced` creates it.
    """

    TYPE: ClassVar[str] = "order.not_placed"
    EXCHANGE: ClassVar[str] = "intake"
    OF_PLATFORM: ClassVar[bool] = True

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET


class OrderPlaced(OrderCreated, frozen=True, kw_only=True):
    """The state of a placed order in a platform's delivery, with an address that can be mailed.

    It creates an order that is awaited, or an unknown one if `is_new`; other unknown orders are
    ignored, or touching all old orders of a shop would mail all its customers. If the order was
    recorded, `tracking_status` counts if `has_moved`.
    """

    TYPE: ClassVar[str] = "order.placed"
    OF_PLATFORM: ClassVar[bool] = True

    has_moved: bool = False
    is_new: bool = False
    made_at: MadeAt = UNSET


class OrderTestCreated(OrderCreated, frozen=True, kw_only=True):
    """`OrderCreated` of a test order.

    A separate type, so that a consumer that does not know test orders refuses it and mails no
    customer.
    """

    TYPE: ClassVar[str] = "order.test_created"
    IS_TEST: ClassVar[bool] = True


class OrderTestStatusChanged(OrderStatusChanged, frozen=True, kw_only=True):
    """`OrderStatusChanged` of a test order."""

    TYPE: ClassVar[str] = "order.test_status_changed"
    IS_TEST: ClassVar[bool] = True


class OrderTestCancelled(OrderCancelled, frozen=True, kw_only=True):
    """`OrderCancelled` of a test order."""

    TYPE: ClassVar[str] = "order.test_cancelled"
    IS_TEST: ClassVar[bool] = True


class OrderTestUnaddressed(OrderUnaddressed, frozen=True, kw_only=True):
    """`OrderUnaddressed` of a test order."""

    TYPE: ClassVar[str] = "order.test_unaddressed"
    IS_TEST: ClassVar[bool] = True


class OrderTestNotPlaced(OrderNotPlaced, frozen=True, kw_only=True):
    """`OrderNotPlaced` of a test order."""

    TYPE: ClassVar[str] = "order.test_not_placed"
    IS_TEST: ClassVar[bool] = True


class OrderTestPlaced(OrderPlaced, frozen=True, kw_only=True):
    """`OrderPlaced` of a test order."""

    TYPE: ClassVar[str] = "order.test_placed"
    IS_TEST: ClassVar[bool] = True


# --- commands --------------------------------------------------------------------------------


class KycDecide(Event, frozen=True, kw_only=True):
    """An operator's decision. The business is named by exactly one of the three ids.

    `ask`: more information is needed, which `reason` names; the business applies again.

    With `application_id`, it takes effect only if that is still the newest application. With
    `looked_at`, only if the application's state is unchanged since it was shown: its status and, if
    it was decided on before, a space and the time of that.
    """

    TYPE: ClassVar[str] = "kyc.decide"
    EXCHANGE: ClassVar[str] = "commands"

    decision: Literal["approve", "reject", "revoke", "ask"]
    account_id: UUID | None = None
    email: Email | None = None
    business_registration_number: Line | None = None
    application_id: UUID | None = None
    looked_at: Line | None = None
    reason: OptionalText = ""


class SecretRotate(Event, frozen=True, kw_only=True):
    """Replace an account's webhook secret.

    With `secret_id`, only if that is still the newest one, so that a second request with the same
    expired secret does not replace its replacement.
    """

    TYPE: ClassVar[str] = "secret.rotate"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    cause: Literal["expired_use", "scheduled", "operator"]
    secret_id: UUID | None = None
    revoke_previous: bool = False


class SecretRevoke(Event, frozen=True, kw_only=True):
    """Revoke all webhook secrets of an account, or the one named."""

    TYPE: ClassVar[str] = "secret.revoke"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    secret_id: UUID | None = None
    reason: OptionalText = ""


class AccountBlock(Event, frozen=True, kw_only=True):
    """Block or unblock an account: its sign-ins, sessions and webhook secrets."""

    TYPE: ClassVar[str] = "account.block"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    blocked: bool
    reason: OptionalText = ""


class WebhookLimit(Event, frozen=True, kw_only=True):
    """Set an account's limit of webhooks per second and worker; None means the default."""

    TYPE: ClassVar[str] = "webhook.limit"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    per_second: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


# --- events: facts ---------------------------------------------------------------------------


class AccountFact(Event, frozen=True, kw_only=True):
    """A fact about an account, with the recipient of its email."""

    EXCHANGE: ClassVar[str] = "events"

    account_id: UUID
    company_name: str
    email: Email


class _Account(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def company_name(self) -> str: ...
    @property
    def email(self) -> str: ...


def of_account(account: _Account, email: str = "") -> dict[str, Any]:
    """Return the fields that every fact about an account has.

    Args:
        account: the account.
        email: the address to notify, if it is not the account's.
    """
    return {
        "account_id": account.id,
        "company_name": account.company_name,
        "email": email or account.email,
    }


CodePurpose = Literal["registration", "password_reset", "new_address", "reply_to"]


class AccountOtpRequested(AccountFact, frozen=True, kw_only=True):
    """A one-time code was made. `sealed_code` is encrypted for `code_id` with the key of codes.

    `company_name` is empty until the address is proved, so that our email does not carry the words
    of a stranger who entered somebody else's address.
    """

    TYPE: ClassVar[str] = "account.otp_requested"

    purpose: CodePurpose = "registration"

    code_id: UUID
    sealed_code: bytes
    expires_at: datetime


class AccountVerified(AccountFact, frozen=True, kw_only=True):
    """An account proved its email address."""

    TYPE: ClassVar[str] = "account.verified"


class AccountSignedIn(AccountFact, frozen=True, kw_only=True):
    """A business signed in from `address`; `is_new_place`: for the first time from there."""

    TYPE: ClassVar[str] = "account.signed_in"

    address: str
    is_new_place: bool = False


class AccountChanged(AccountFact, frozen=True, kw_only=True):
    """An account was changed in a way that its owner is notified of, at `email`.

    `address` is the client's; `by` is empty if a signed-in user or a mailed code did it. `value` is
    the new value, if that is not secret.
    """

    TYPE: ClassVar[str] = "account.changed"

    what: Literal[
        "password_changed",
        "password_reset",
        "address_changed",
        "refresh_token_reused",
        "closed",
        "blocked",
        "unblocked",
        "standard_webhooks_only",
        "both_schemes",
        "display_name_changed",
        "reply_to_changed",
    ]
    address: str = ""
    by: str = ""
    reason: str = ""
    value: str = ""


class AccountSignInFailed(Event, frozen=True, kw_only=True):
    """A sign-in from `address` failed: a wrong password, or no such account.

    At most one a minute and account is published; without an account one an hour and network, and a
    hundred an hour in all. `email` is empty without an account, since a password may have been
    typed there.
    """

    TYPE: ClassVar[str] = "account.sign_in_failed"
    EXCHANGE: ClassVar[str] = "events"

    email: str
    account_id: UUID | None
    address: str


class KycSubmitted(AccountFact, frozen=True, kw_only=True):
    """A business sent its KYC application."""

    TYPE: ClassVar[str] = "kyc.submitted"

    application_id: UUID
    business_registration_number: str


class KycApproved(AccountFact, frozen=True, kw_only=True):
    """An operator approved an application."""

    TYPE: ClassVar[str] = "kyc.approved"

    application_id: UUID
    decided_by: str


class KycRejected(AccountFact, frozen=True, kw_only=True):
    """An operator rejected an application; `reason` is for the business to read."""

    TYPE: ClassVar[str] = "kyc.rejected"

    application_id: UUID
    decided_by: str
    reason: str


class KycInformationRequested(AccountFact, frozen=True, kw_only=True):
    """An operator needs more information; `reason` tells the business which."""

    TYPE: ClassVar[str] = "kyc.information_requested"

    application_id: UUID
    decided_by: str
    reason: str


class KycRevoked(AccountFact, frozen=True, kw_only=True):
    """An operator revoked an approval, and the named secrets with it."""

    TYPE: ClassVar[str] = "kyc.revoked"

    application_id: UUID
    decided_by: str
    reason: str
    secret_ids: tuple[UUID, ...] = ()


class SecretIssued(AccountFact, frozen=True, kw_only=True):
    """An account without an active secret was issued one.

    `revoked_ids` are retiring secrets that were revoked at the same time, if that was requested.
    """

    TYPE: ClassVar[str] = "secret.issued"

    secret_id: UUID
    expires_at: datetime
    is_test: bool = False
    revoked_ids: tuple[UUID, ...] = ()


class SecretShown(AccountFact, frozen=True, kw_only=True):
    """A business was shown its secret at `address`; published once a secret, day and network."""

    TYPE: ClassVar[str] = "secret.shown"

    secret_id: UUID
    address: str
    is_test: bool = False


class SecretGiven(AccountFact, frozen=True, kw_only=True):
    """A business entered, at `address`, the secret with which a platform signs for a shop.

    A previous one works until `previous_valid_until`; `revoked_ids` were revoked.
    """

    TYPE: ClassVar[str] = "secret.given"

    platform: str
    shop: str = ""
    secret_id: UUID
    address: str
    previous_valid_until: datetime | None = None
    revoked_ids: tuple[UUID, ...] = ()


class WebhookAllowlistChanged(AccountFact, frozen=True, kw_only=True):
    """A business changed its allowlist, at `address`; an empty one allows all networks."""

    TYPE: ClassVar[str] = "webhook.allowlist_changed"

    address: str
    allowed_networks: tuple[str, ...]


class WebhookFileSent(AccountFact, frozen=True, kw_only=True):
    """A business began, at `address`, to upload a file of orders and updates.

    Each of them is accepted as any other request; `sha256` identifies the file.
    """

    TYPE: ClassVar[str] = "webhook.file_sent"

    address: str
    sha256: str
    orders: int
    updates: int = 0


class SecretRotated(AccountFact, frozen=True, kw_only=True):
    """A new secret replaced another, which works until `previous_valid_until`.

    `revoked_ids` are retiring secrets that were revoked at the same time, if that was requested.
    """

    TYPE: ClassVar[str] = "secret.rotated"

    secret_id: UUID
    expires_at: datetime
    previous_secret_id: UUID
    previous_valid_until: datetime
    cause: Literal["expired_use", "scheduled", "operator", "business"]
    revoked_ids: tuple[UUID, ...] = ()
    is_test: bool = False


class SecretExpiring(AccountFact, frozen=True, kw_only=True):
    """A replaced secret expires soon.

    With its use: when last, and for which share of the account's requests of the last day (0 to 1).
    `is_last`: there is no further warning.
    """

    TYPE: ClassVar[str] = "secret.expiring"

    secret_id: UUID
    expires_at: datetime
    last_used_at: datetime | None = None
    share_of_last_day: float = 0.0
    is_last: bool = False
    is_test: bool = False


class SecretRevoked(AccountFact, frozen=True, kw_only=True):
    """Secrets stopped working immediately.

    `kinds` has each kind among them: `live`, `test`, `key` (a public key) or a platform's name;
    empty from earlier versions. With a `cause` the `reason` is its sentence in English; without
    one it is what an operator wrote.
    """

    TYPE: ClassVar[str] = "secret.revoked"

    secret_ids: tuple[UUID, ...]
    reason: str
    kinds: tuple[str, ...] = ()
    cause: Literal["", "ended_test_mode", "removed", "approval_revoked", "account_closed"] = ""


class _SecretKeyFact(AccountFact, frozen=True, kw_only=True):
    key_id: UUID
    public_key: str
    address: str


class SecretKeyAdded(_SecretKeyFact, frozen=True, kw_only=True):
    """A business added a public key, at `address`."""

    TYPE: ClassVar[str] = "secret.key_added"


class SecretKeyRemoved(_SecretKeyFact, frozen=True, kw_only=True):
    """A business removed a public key, at `address`.

    `secret_ids` has the id of the key, as facts of revoked secrets have.
    """

    TYPE: ClassVar[str] = "secret.key_removed"

    secret_ids: tuple[UUID, ...]


class _OrderFact(Event, frozen=True, kw_only=True):
    EXCHANGE: ClassVar[str] = "events"

    order_id: UUID
    account_id: UUID
    company_name: str
    customer_name: str
    customer_email: Email
    item_summary: str
    tracking_status: TrackingStatus
    order_number: str | UnsetType = UNSET
    carrier: str | UnsetType = UNSET
    tracking_number: str | UnsetType = UNSET
    tracking_url: TrackingUrl | UnsetType = UNSET
    estimated_delivery: date | UnsetType = UNSET
    # Which of the order's links leads to its page, but for the first: shared/security/tracking.py.
    tracking_link: int | UnsetType = UNSET


class OrderRecorded(_OrderFact, frozen=True, kw_only=True):
    """An order was recorded."""

    TYPE: ClassVar[str] = "order.recorded"

    address: str


class OrderStatusRecorded(_OrderFact, frozen=True, kw_only=True):
    """A recorded order has a new status."""

    TYPE: ClassVar[str] = "order.status_recorded"

    previous_status: TrackingStatus
    note: str


class OrderCancellationRecorded(_OrderFact, frozen=True, kw_only=True):
    """A recorded order was cancelled."""

    TYPE: ClassVar[str] = "order.cancellation_recorded"

    reason: str


class OrderTestRecorded(OrderRecorded, frozen=True, kw_only=True):
    """A test order was recorded; `customer_email` is the address of its own business.

    `order_email`: the address in the order, which is not mailed; an erasure finds it.
    """

    TYPE: ClassVar[str] = "order.test_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderTestStatusRecorded(OrderStatusRecorded, frozen=True, kw_only=True):
    """A test order has a new status; `customer_email` is the address of its own business."""

    TYPE: ClassVar[str] = "order.test_status_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderTestCancellationRecorded(OrderCancellationRecorded, frozen=True, kw_only=True):
    """A test order was cancelled; `customer_email` is the address of its own business."""

    TYPE: ClassVar[str] = "order.test_cancellation_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderNotTaken(AccountFact, frozen=True, kw_only=True):
    """An order or update could not be recorded; published once a kind and day.

    `update_given_up`: the order of the update `event_id` never arrived. `key_reused`: another order
    has its order number or, without one, its idempotency key. `no_email_address`: a shop's order
    has none that can be mailed. `of_shop`: it came from a platform.
    """

    TYPE: ClassVar[str] = "order.not_taken"

    what: Literal["update_given_up", "key_reused", "no_email_address"]
    order_id: UUID
    event_id: UUID
    order_number: str | UnsetType = UNSET
    of_shop: bool | UnsetType = UNSET


class RefusedRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """An address that the mail server refused permanently, with its reply, and an order of it.

    The address is a text, since it is replaced when its owner is erased.
    """

    address: str
    order_id: UUID
    response: str
    order_number: str | UnsetType = UNSET


class OrderRecipientsRefused(AccountFact, frozen=True, kw_only=True):
    """Addresses of a business's customers were refused; `total` since the last such fact.

    At most one a day.
    """

    TYPE: ClassVar[str] = "order.recipients_refused"

    recipients: tuple[RefusedRecipient, ...]
    total: int


class EmailUndeliverable(Event, frozen=True, kw_only=True):
    """A mail server refused an email permanently. Without the address; see `fact_id`."""

    TYPE: ClassVar[str] = "email.undeliverable"
    EXCHANGE: ClassVar[str] = "events"

    fact_id: UUID
    fact_type: str
    template: str
    smtp_code: int
    reason: str


class EmailSuppressionLifted(AccountFact, frozen=True, kw_only=True):
    """A business, at `address`, allowed emails to a refused customer address again.

    For the audit log, without the customer's address.
    """

    TYPE: ClassVar[str] = "email.suppression_lifted"

    address: str
    suppression_id: UUID


class EmailLocaleChanged(AccountFact, frozen=True, kw_only=True):
    """A business set, at `address`, the language and time zone of its customers' emails."""

    TYPE: ClassVar[str] = "email.locale_changed"

    address: str
    language: str
    time_zone: str


class _OpsFact(Event, frozen=True, kw_only=True):
    """An action of ops staff, `by` a person at `address`; for the audit log."""

    EXCHANGE: ClassVar[str] = "events"

    by: str
    address: str


class OpsDeadLetterReplayed(_OpsFact, frozen=True, kw_only=True):
    """A dead letter was put back into its work queue; `edited`: with another body.

    `digest` is the SHA-256 of its body, in hexadecimal, and `new_digest` that of its new one.
    """

    TYPE: ClassVar[str] = "ops.dead_letter_replayed"

    queue: str
    message_id: str
    message_type: str
    edited: bool = False
    digest: str = ""
    new_digest: str = ""


class OpsDeadLetterDiscarded(_OpsFact, frozen=True, kw_only=True):
    """A dead letter was discarded. `digest` is the SHA-256 of its body, in hexadecimal."""

    TYPE: ClassVar[str] = "ops.dead_letter_discarded"

    queue: str
    message_id: str
    message_type: str
    reason: str
    digest: str


class OpsOutboxChanged(_OpsFact, frozen=True, kw_only=True):
    """A parked message of the outbox was retried, edited or discarded.

    `digest` is the SHA-256 of its body, in hexadecimal, and `new_digest` that of its new one.
    """

    TYPE: ClassVar[str] = "ops.outbox_changed"

    action: Literal["retried", "edited", "discarded"]
    message_id: str
    message_type: str
    written_by: str
    digest: str
    reason: str = ""
    new_digest: str = ""


class OpsRetriedNow(_OpsFact, frozen=True, kw_only=True):
    """Messages in delay queues were put back into their work queue early."""

    TYPE: ClassVar[str] = "ops.retried_now"

    queue: str
    messages: int


class OpsJournalReplayed(_OpsFact, frozen=True, kw_only=True):
    """A replay of the journal into a queue has begun or, with `messages`, ended.

    `until` is the latest time of a replayed message. `how` they are handled: `again`, or `done`,
    without an effect. `types` are patterns; none means all types of the queue.
    """

    TYPE: ClassVar[str] = "ops.journal_replayed"

    queue: str
    since: datetime
    until: datetime
    how: Literal["again", "done"]
    types: list[str] = []
    messages: int | None = None


class OpsTroubleChanged(_OpsFact, frozen=True, kw_only=True):
    """A trouble was acknowledged, muted until a time or its end, or unmuted."""

    TYPE: ClassVar[str] = "ops.trouble_changed"

    action: Literal["acknowledged", "muted", "unmuted"]
    trouble: str
    note: str = ""
    until: datetime | None = None


class OpsCommandPublished(_OpsFact, frozen=True, kw_only=True):
    """A command was published whose own fact does not name its author."""

    TYPE: ClassVar[str] = "ops.command_published"

    command: str
    message_id: UUID
    reason: str = ""
    decision: str = ""
    application_id: UUID | None = None


class OpsKycDecisionRecorded(_OpsFact, frozen=True, kw_only=True):
    """An operator made or withdrew a decision that takes several operators.

    `counted` are the operators whose decisions count now; `needed` is the required number.
    """

    TYPE: ClassVar[str] = "ops.kyc_decision_recorded"

    account_id: UUID
    application_id: UUID
    decision: Literal["approve", "revoke"]
    reason: str = ""
    counted: tuple[str, ...]
    needed: int


class OpsKycNoteAdded(_OpsFact, frozen=True, kw_only=True):
    """An operator added a note to an application, which the business does not see.

    `digest` is the SHA-256 of its text in UTF-8, in hexadecimal; the text is in the database.
    """

    TYPE: ClassVar[str] = "ops.kyc_note_added"

    account_id: UUID
    application_id: UUID
    note_id: UUID
    digest: str


class OpsCustomerErased(_OpsFact, frozen=True, kw_only=True):
    """A customer's data was erased: how many rows and messages, by place. Of whom is not told."""

    TYPE: ClassVar[str] = "ops.customer_erased"

    reason: str
    places: dict[str, int]


class OpsSuppressionLifted(_OpsFact, frozen=True, kw_only=True):
    """An address of a business's customer is mailed again that was refused. Which, is not told."""

    TYPE: ClassVar[str] = "ops.suppression_lifted"

    account_id: UUID
    suppression_id: UUID
    reason: str = ""


class OpsSignedIn(_OpsFact, frozen=True, kw_only=True):
    """Somebody of ops staff signed in to the console; empty: without a second factor."""

    TYPE: ClassVar[str] = "ops.signed_in"

    second_factor: Literal["", "code", "recovery_code"] = ""


class OpsSignInFailed(_OpsFact, frozen=True, kw_only=True):
    """Somebody tried a wrong password at the console; `by` is the user, where there is one.

    Of a name that is nobody's it is not told what was typed: that may be a password; and one an
    hour and network, a hundred an hour in all.

    `password_was_right`: it was the code that was wrong.
    `was_held_up`: nothing was looked at, since there were too many before; told once an hour.
    """

    TYPE: ClassVar[str] = "ops.sign_in_failed"

    password_was_right: bool = False
    was_held_up: bool = False


class OpsSignedOut(_OpsFact, frozen=True, kw_only=True):
    """Somebody of ops staff signed out of the console."""

    TYPE: ClassVar[str] = "ops.signed_out"


class OpsUserChanged(_OpsFact, frozen=True, kw_only=True):
    """A user of the console was made, changed or removed; `role` is empty for one that is gone."""

    TYPE: ClassVar[str] = "ops.user_changed"

    user: str
    role: str


class OpsSecondFactorChanged(_OpsFact, frozen=True, kw_only=True):
    """A user of the console has another second factor, none any more, or new recovery codes."""

    TYPE: ClassVar[str] = "ops.second_factor_changed"

    user: str
    change: Literal["set_up", "reset", "recovery_codes_made"]


class OpsSessionsEnded(_OpsFact, frozen=True, kw_only=True):
    """Sessions of a user of the console were ended by hand."""

    TYPE: ClassVar[str] = "ops.sessions_ended"

    user: str
    sessions: int


class OpsDataViewed(_OpsFact, frozen=True, kw_only=True):
    """Ops staff were shown personal data; the fact is without the data.

    `page` is the console's page or the command, and `of` the ids of what was shown.
    """

    TYPE: ClassVar[str] = "ops.data_viewed"

    page: str
    of: tuple[str, ...] = ()


def _concrete(base: type[Event]) -> list[type[Event]]:
    found = [base] if base.TYPE else []
    for child in base.__subclasses__():
        found += _concrete(child)
    return found


EVENT_TYPES: dict[str, type[Event]] = {event.TYPE: event for event in _concrete(Event)}
"""Every message's Struct by its type, which is also its routing key."""

IN_TEST: dict[type[Event], type[Event]] = {
    base: event
    for event in EVENT_TYPES.values()
    if event.IS_TEST
    for base in event.__bases__
    if issubclass(base, Event)
}
"""The events of test orders, by the event of a live order."""
CREATED = frozenset({OrderCreated.TYPE, OrderTestCreated.TYPE})
"""The types that create an order."""
OF_A_CUSTOMER = CREATED | {OrderPlaced.TYPE, OrderTestPlaced.TYPE}
"""The types with the customer's data."""


def in_test(event: Event, **changes: object) -> Event:
    """Return the event of a test order for one of a live order.

    Args:
        event: about a live order.
        **changes: fields that differ.
    """
    # What the ingress reads of a body is a Struct of its own below the event's.
    live = EVENT_TYPES[event.TYPE]
    members = {name: getattr(event, name) for name in live.__struct_fields__}
    return IN_TEST[live](**(members | changes))


_encoder = msgspec.json.Encoder()
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    type_: msgspec.json.Decoder(struct) for type_, struct in EVENT_TYPES.items()
}


def encode(event: Event) -> bytes:
    """Encode an event as JSON in UTF-8."""
    return _encoder.encode(event)


def decode(type_: str, body: bytes) -> Event:
    """Decode and validate a body.

    Args:
        type_: the message's `type` property.
        body: the event's data, JSON in UTF-8.

    Raises:
        msgspec.DecodeError: the type is unknown, or the body does not fit; the message says where.
    """
    decoder = _decoders.get(type_)
    if decoder is None:
        raise msgspec.DecodeError(f"unknown message type {type_!r}")
    try:
        event: Event = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise msgspec.ValidationError(describe_faults(body, EVENT_TYPES[type_])) from None
    return event
