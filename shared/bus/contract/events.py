"""Every message on the bus, as a msgspec Struct: decoding one is validating it.

Three kinds, by the exchange they are published to:

* `intake`: what a sender told us about an order. Published by the ingress.
* `commands`: what somebody wants done. Published by operators, the ingress and the CLI.
* `events`: facts, in the past tense. Written to the outbox beside the rows they tell of, and
  published by the relay alone.

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
from shared.validation.other_forms import day_of, url_of
from shared.validation.reading import why_not

# The end of the text, in Python's regular expressions as in JSON Schema's (ECMA 262). Python's `$`
# also matches before a last line feed, and ECMA 262 has no `\Z`.
_END = r"(?![\s\S])"
# What may stand in one line: no control characters, so no header or log line can be forged. A
# pattern has words beside it, which are shown instead (shared/validation/words.py).
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
Text = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=4_000,
        pattern=rf"^[^\x00]+{_END}",
        description="text of 1 to 4,000 characters, without U+0000",
    ),
]
OptionalText = Annotated[
    str,
    msgspec.Meta(
        max_length=4_000,
        pattern=rf"^[^\x00]*{_END}",
        description="text of at most 4,000 characters, without U+0000",
    ),
]
# RFC 5321, 4.5.3.1 bounds the length. The form is the HTML standard's idea of a valid address with
# a dot in the domain; whether the mailbox exists, only sending tells.
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
# What others call a thing by. A number that is one in JSON too is understood as its digits.
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
"""The sender's own, unique among its orders; `shared.ids` makes the order's id of it."""
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
"""The sender's own, kept with the order and given back; we make nothing of it."""
# A customer is to follow it. Only characters of RFC 3986 (2): whatever else stands in an address is
# percent-encoded (2.1). Nothing before an `@` (3.2.1), which hides where a link leads.
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
# A day and no time: a time has a zone, and its day is another one where the customer lives.
Day = Annotated[
    date,
    msgspec.Meta(
        description="a day, such as 2026-12-03; of a time, the day that is written in it",
        examples=["2026-12-03"],
        extra={"normalise": day_of, "empty_is_none": True},
    ),
]
# UNSET is not written: an order without these is on the bus what it was before there were any.
_EMPTY = {"empty_is_none": True}
Carrier = Annotated[Reference, msgspec.Meta(examples=["Swift Parcels"], extra=_EMPTY)] | UnsetType
TrackingNumber = Annotated[Reference, msgspec.Meta(examples=["JD0146"], extra=_EMPTY)] | UnsetType


class TrackingStatus(StrEnum):
    """Where an order is. `IN TRANSIT`, with a space or in small letters, is understood too."""

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
    """Whether it is about a test order, which is told to its own business and counts nowhere."""
    OF_PLATFORM: ClassVar[bool] = False
    """Whether the ingress alone says it, of what a platform sends: no sender may write it."""


class CustomerDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The person who ordered, as the sender names them."""

    name: Annotated[Line, msgspec.Meta(examples=["Zoë Ade"])]
    email: Email
    phone: Annotated[OptionalLine, msgspec.Meta(examples=["+2348000000"])] = ""


class FormerId(msgspec.Struct, frozen=True, kw_only=True):
    """The id that earlier versions gave an order of WooCommerce: of its shop and its number there.

    A shop that begins to count anew gives it to another order too; so an order that was accepted
    before `made_at`, when the shop made this one, is another one.

    `spelled_id`, of a shop whose links may name a language: the id that versions before 0049 made
    of the shop's address as this link has it.
    """

    order_id: UUID
    made_at: datetime
    spelled_id: UUID | UnsetType = UNSET


Former = FormerId | UnsetType
MadeAt = Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType
"""When a shop made an order, by its own clock."""


# --- intake: what a sender said --------------------------------------------------------------


class OrderCreated(Event, frozen=True, kw_only=True):
    """A sender says: this order exists."""

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
    """A sender says: this order, named by its id or its own number, is now here."""

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
    """A sender says: this order, named by its id or its own number, will not come."""

    TYPE: ClassVar[str] = "order.cancelled"
    EXCHANGE: ClassVar[str] = "intake"

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET
    reason: Annotated[OptionalText, msgspec.Meta(examples=["Out of stock."])] = ""
    former: Former = UNSET


class OrderUnaddressed(Event, frozen=True, kw_only=True):
    """A shop's own webhook says: this order exists; and it has no email address to be mailed.

    Said by the ingress of what a platform sends, and by no sender: theirs need an address. A new
    one is waited for: an `OrderPlaced` that has one creates it.

    `is_change`: it is not new, and nobody begins to wait for it. Where the order is there, it
    keeps its customer, and `tracking_status` counts.
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
    """A shop's own webhook says: this order exists, and nobody has placed it, or does any more.

    It is a draft, unpaid, failed or cancelled. It is waited for: an `OrderPlaced` creates it.
    """

    TYPE: ClassVar[str] = "order.not_placed"
    EXCHANGE: ClassVar[str] = "intake"
    OF_PLATFORM: ClassVar[bool] = True

    order_id: UUID
    account_id: UUID
    order_number: OrderNumber | UnsetType = UNSET


class OrderPlaced(OrderCreated, frozen=True, kw_only=True):
    """A shop's own webhook says how an order is now that is placed and can be mailed.

    It creates an order that is waited for, or, where `is_new`, one that is not known: of any other,
    whoever touches each old order of a shop would mail each customer. Where the order is there,
    `tracking_status` counts if `has_moved`.
    """

    TYPE: ClassVar[str] = "order.placed"
    OF_PLATFORM: ClassVar[bool] = True

    has_moved: bool = False
    is_new: bool = False
    made_at: MadeAt = UNSET


class OrderTestCreated(OrderCreated, frozen=True, kw_only=True):
    """The same of a test order.

    Of another type, so that whoever knows no test orders refuses it, and mails no customer.
    """

    TYPE: ClassVar[str] = "order.test_created"
    IS_TEST: ClassVar[bool] = True


class OrderTestStatusChanged(OrderStatusChanged, frozen=True, kw_only=True):
    """The same of a test order."""

    TYPE: ClassVar[str] = "order.test_status_changed"
    IS_TEST: ClassVar[bool] = True


class OrderTestCancelled(OrderCancelled, frozen=True, kw_only=True):
    """The same of a test order."""

    TYPE: ClassVar[str] = "order.test_cancelled"
    IS_TEST: ClassVar[bool] = True


class OrderTestUnaddressed(OrderUnaddressed, frozen=True, kw_only=True):
    """The same of a test order."""

    TYPE: ClassVar[str] = "order.test_unaddressed"
    IS_TEST: ClassVar[bool] = True


class OrderTestNotPlaced(OrderNotPlaced, frozen=True, kw_only=True):
    """The same of a test order."""

    TYPE: ClassVar[str] = "order.test_not_placed"
    IS_TEST: ClassVar[bool] = True


class OrderTestPlaced(OrderPlaced, frozen=True, kw_only=True):
    """The same of a test order."""

    TYPE: ClassVar[str] = "order.test_placed"
    IS_TEST: ClassVar[bool] = True


# --- commands: what somebody wants done ------------------------------------------------------


class KycDecide(Event, frozen=True, kw_only=True):
    """An operator's decision. The business is named by exactly one of the three ids.

    `ask`: more information is needed, and `reason` says which; the business sends its application
    again.

    With `application_id`, only if that is still its newest application: what was looked at. With
    `looked_at`, only if that still stands as it did then: its status and, where it was decided on
    before, a space and the time of that.
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

    With `secret_id`, only if that one is still the newest: a second request with the same expired
    secret must not replace its replacement.
    """

    TYPE: ClassVar[str] = "secret.rotate"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    cause: Literal["expired_use", "scheduled", "operator"]
    secret_id: UUID | None = None
    revoke_previous: bool = False


class SecretRevoke(Event, frozen=True, kw_only=True):
    """Revoke an account's webhook secrets: all of them, or the one named."""

    TYPE: ClassVar[str] = "secret.revoke"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    secret_id: UUID | None = None
    reason: OptionalText = ""


class AccountBlock(Event, frozen=True, kw_only=True):
    """Block an account, or let it in again: its sign-ins, its sessions and its webhook secrets."""

    TYPE: ClassVar[str] = "account.block"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    blocked: bool
    reason: OptionalText = ""


class WebhookLimit(Event, frozen=True, kw_only=True):
    """Set how many webhooks a second a worker takes of an account; None means the default."""

    TYPE: ClassVar[str] = "webhook.limit"
    EXCHANGE: ClassVar[str] = "commands"

    account_id: UUID
    per_second: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


# --- events: facts ---------------------------------------------------------------------------


class AccountFact(Event, frozen=True, kw_only=True):
    """A fact about an account carries whom to tell, so that the notifier need not ask anybody."""

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
    """What every fact about an account carries; `email` where it is not its own that is told."""
    return {
        "account_id": account.id,
        "company_name": account.company_name,
        "email": email or account.email,
    }


CodePurpose = Literal["registration", "password_reset", "new_address", "reply_to"]


class AccountOtpRequested(AccountFact, frozen=True, kw_only=True):
    """A one-time code was made. `sealed_code` opens for `code_id`, under the key of codes.

    `company_name` is empty while the address is not proved: who asked may be anybody, and our email
    must not carry a stranger's words.
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
    """A business signed in, from `address`; `is_new_place`: never from there before."""

    TYPE: ClassVar[str] = "account.signed_in"

    address: str
    is_new_place: bool = False


class AccountChanged(AccountFact, frozen=True, kw_only=True):
    """What its owner must know happened to an account; `email` is the address that is told.

    `address` is the client's; `by` is empty where somebody signed in did it, or a mailed code.
    `value` is what something was changed to, where that is no secret.
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
    """Somebody at `address` tried to sign in with a wrong password, or as nobody known here.

    However many tries: one a minute and account, or a minute and address where there is no account.
    `email` is empty where there is none: what was typed there may be a password.
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
    """An operator rejected an application; `reason` is meant for the business to read."""

    TYPE: ClassVar[str] = "kyc.rejected"

    application_id: UUID
    decided_by: str
    reason: str


class KycInformationRequested(AccountFact, frozen=True, kw_only=True):
    """An operator needs to know more before deciding; `reason` says what, to the business."""

    TYPE: ClassVar[str] = "kyc.information_requested"

    application_id: UUID
    decided_by: str
    reason: str


class KycRevoked(AccountFact, frozen=True, kw_only=True):
    """An operator took an approval back; the secrets named stopped working with it."""

    TYPE: ClassVar[str] = "kyc.revoked"

    application_id: UUID
    decided_by: str
    reason: str
    secret_ids: tuple[UUID, ...] = ()


class SecretIssued(AccountFact, frozen=True, kw_only=True):
    """An account without an active secret got one.

    `revoked_ids` are earlier ones, replaced but working, that stopped at once, where that was
    wanted.
    """

    TYPE: ClassVar[str] = "secret.issued"

    secret_id: UUID
    expires_at: datetime
    is_test: bool = False
    revoked_ids: tuple[UUID, ...] = ()


class SecretShown(AccountFact, frozen=True, kw_only=True):
    """A business was shown its secret, at `address`; one a secret, day and network is told."""

    TYPE: ClassVar[str] = "secret.shown"

    secret_id: UUID
    address: str
    is_test: bool = False


class SecretGiven(AccountFact, frozen=True, kw_only=True):
    """A business gave us, at `address`, the secret that a platform signs with; of one of its shops.

    The one before, if there was one, goes on working until `previous_valid_until`; `revoked_ids`
    stopped working at once.
    """

    TYPE: ClassVar[str] = "secret.given"

    platform: str
    shop: str = ""
    secret_id: UUID
    address: str
    previous_valid_until: datetime | None = None
    revoked_ids: tuple[UUID, ...] = ()


class WebhookAllowlistChanged(AccountFact, frozen=True, kw_only=True):
    """A business said, at `address`, where its webhooks may come from; none means anywhere."""

    TYPE: ClassVar[str] = "webhook.allowlist_changed"

    address: str
    allowed_networks: tuple[str, ...]


class WebhookFileSent(AccountFact, frozen=True, kw_only=True):
    """A business began, at `address`, to send a file: so many orders and updates of orders.

    Each of them comes as any other does; by `sha256` a copy of the file is told from another.
    """

    TYPE: ClassVar[str] = "webhook.file_sent"

    address: str
    sha256: str
    orders: int
    updates: int = 0


class SecretRotated(AccountFact, frozen=True, kw_only=True):
    """A new secret replaced another, which goes on working until `previous_valid_until`.

    `revoked_ids` are the earlier ones that stopped working at once, where that was wanted.
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
    """A replaced secret stops working soon.

    With how much it is still in use: when last, and for which part of the account's requests of the
    last day (0 to 1). `is_last`: no further warning comes.
    """

    TYPE: ClassVar[str] = "secret.expiring"

    secret_id: UUID
    expires_at: datetime
    last_used_at: datetime | None = None
    share_of_last_day: float = 0.0
    is_last: bool = False
    is_test: bool = False


class SecretRevoked(AccountFact, frozen=True, kw_only=True):
    """Secrets stopped working at once."""

    TYPE: ClassVar[str] = "secret.revoked"

    secret_ids: tuple[UUID, ...]
    reason: str


class _SecretKeyFact(AccountFact, frozen=True, kw_only=True):
    key_id: UUID
    public_key: str
    address: str


class SecretKeyAdded(_SecretKeyFact, frozen=True, kw_only=True):
    """A business said, at `address`, that it signs by this public key too."""

    TYPE: ClassVar[str] = "secret.key_added"


class SecretKeyRemoved(_SecretKeyFact, frozen=True, kw_only=True):
    """A business said, at `address`, that it signs by this public key no more.

    `secret_ids` is what stopped working, where every such fact has it.
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
    """A recorded order moved on."""

    TYPE: ClassVar[str] = "order.status_recorded"

    previous_status: TrackingStatus
    note: str


class OrderCancellationRecorded(_OrderFact, frozen=True, kw_only=True):
    """A recorded order was cancelled."""

    TYPE: ClassVar[str] = "order.cancellation_recorded"

    reason: str


class OrderTestRecorded(OrderRecorded, frozen=True, kw_only=True):
    """A test order is in the books; `customer_email` is its own business's address, none else.

    `order_email`: whom the sender named, for an erasure to find; nobody is mailed there.
    """

    TYPE: ClassVar[str] = "order.test_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderTestStatusRecorded(OrderStatusRecorded, frozen=True, kw_only=True):
    """A test order moved on; `customer_email` is its own business's address."""

    TYPE: ClassVar[str] = "order.test_status_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderTestCancellationRecorded(OrderCancellationRecorded, frozen=True, kw_only=True):
    """A test order was cancelled; `customer_email` is its own business's address."""

    TYPE: ClassVar[str] = "order.test_cancellation_recorded"
    IS_TEST: ClassVar[bool] = True

    order_email: str = ""


class OrderNotTaken(AccountFact, frozen=True, kw_only=True):
    """What a sender said of an order came to nothing; one of a kind and day is told.

    `update_given_up`: the order that the update `event_id` names never came. `key_reused`: another
    order had come under its order number or, where it has none, its idempotency key.
    `no_email_address`: a shop's order has none that can be mailed. `of_shop`: a platform said it.
    """

    TYPE: ClassVar[str] = "order.not_taken"

    what: Literal["update_given_up", "key_reused", "no_email_address"]
    order_id: UUID
    event_id: UUID
    order_number: str | UnsetType = UNSET
    of_shop: bool | UnsetType = UNSET


class RefusedRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """An address that the mail server refused for good, with its words, and an order that it had.

    The address is text: once its owner is erased it is none.
    """

    address: str
    order_id: UUID
    response: str


class OrderRecipientsRefused(AccountFact, frozen=True, kw_only=True):
    """Addresses of a business's customers were refused; `total` of them since it was last told.

    One a day at most is told.
    """

    TYPE: ClassVar[str] = "order.recipients_refused"

    recipients: tuple[RefusedRecipient, ...]
    total: int


class EmailUndeliverable(Event, frozen=True, kw_only=True):
    """A mail server refused an email for good. No address is in it: `fact_id` leads there."""

    TYPE: ClassVar[str] = "email.undeliverable"
    EXCHANGE: ClassVar[str] = "events"

    fact_id: UUID
    fact_type: str
    template: str
    smtp_code: int
    reason: str


class EmailSuppressionLifted(AccountFact, frozen=True, kw_only=True):
    """A business at `address` has a customer's address mailed again that was refused.

    For the audit log; which address, is not told.
    """

    TYPE: ClassVar[str] = "email.suppression_lifted"

    address: str
    suppression_id: UUID


class EmailLocaleChanged(AccountFact, frozen=True, kw_only=True):
    """A business said, at `address`, in which language and time its customers' emails are."""

    TYPE: ClassVar[str] = "email.locale_changed"

    address: str
    language: str
    time_zone: str


class _OpsFact(Event, frozen=True, kw_only=True):
    """What ops staff did: `by` whom, at which `address`; for the audit log."""

    EXCHANGE: ClassVar[str] = "events"

    by: str
    address: str


class OpsDeadLetterReplayed(_OpsFact, frozen=True, kw_only=True):
    """A dead letter is back in its work queue; `edited`: with another body.

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
    """A dead letter is gone. `digest` is the SHA-256 of its body, in hexadecimal."""

    TYPE: ClassVar[str] = "ops.dead_letter_discarded"

    queue: str
    message_id: str
    message_type: str
    reason: str
    digest: str


class OpsOutboxChanged(_OpsFact, frozen=True, kw_only=True):
    """A parked message of the outbox was tried again, edited or discarded.

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
    """Messages that waited on the retry ladder for a queue went back to it ahead of their time."""

    TYPE: ClassVar[str] = "ops.retried_now"

    queue: str
    messages: int


class OpsJournalReplayed(_OpsFact, frozen=True, kw_only=True):
    """The journal is put into a queue again; without `messages` it has begun, else it has ended.

    `until` is the latest at which a message may have happened. `how` is how they are taken:
    `again`, or `done`, with no effect. `types` are patterns; none are all that the queue is for.
    """

    TYPE: ClassVar[str] = "ops.journal_replayed"

    queue: str
    since: datetime
    until: datetime
    how: Literal["again", "done"]
    types: list[str] = []
    messages: int | None = None


class OpsTroubleChanged(_OpsFact, frozen=True, kw_only=True):
    """Somebody looks after a trouble, or wants nobody told of it until a time or its end."""

    TYPE: ClassVar[str] = "ops.trouble_changed"

    action: Literal["acknowledged", "muted", "unmuted"]
    trouble: str
    note: str = ""
    until: datetime | None = None


class OpsCommandPublished(_OpsFact, frozen=True, kw_only=True):
    """A command was published to the bus, whose own fact does not say who wanted it."""

    TYPE: ClassVar[str] = "ops.command_published"

    command: str
    message_id: UUID
    reason: str = ""
    decision: str = ""
    application_id: UUID | None = None


class OpsKycDecisionRecorded(_OpsFact, frozen=True, kw_only=True):
    """Somebody decided on an application that takes several, or took a decision back.

    `counted` are those whose decision counts afterwards, of whom `needed` must be.
    """

    TYPE: ClassVar[str] = "ops.kyc_decision_recorded"

    account_id: UUID
    application_id: UUID
    decision: Literal["approve", "revoke"]
    reason: str = ""
    counted: tuple[str, ...]
    needed: int


class OpsKycNoteAdded(_OpsFact, frozen=True, kw_only=True):
    """Somebody wrote a note on an application, which is not told to the business.

    `digest` is the SHA-256 of its text in UTF-8, in hexadecimal: what it says is in the books.
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

    Of a name that is nobody's it is not told what was typed: that may be a password.

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
    """Somebody of ops staff was shown personal data, in the clear; the data itself is not told.

    `page` is the console's page, or the command, and `of` the ids that it was about.
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
"""What the events about an order are when it is a test order."""
CREATED = frozenset({OrderCreated.TYPE, OrderTestCreated.TYPE})
"""The types by which an order comes to be."""
OF_A_CUSTOMER = CREATED | {OrderPlaced.TYPE, OrderTestPlaced.TYPE}
"""Those that say who ordered and what."""


def in_test(event: Event, **changes: object) -> Event:
    """The same of a test order.

    Args:
        event: about a live one.
        changes: members that differ.
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
    """The event's data as JSON, in UTF-8."""
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
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise msgspec.ValidationError(why_not(body, EVENT_TYPES[type_])) from None
    return event
