"""All tables. The comment above each group names the one service that writes it; others may read.

Constraints enforce the invariants even if the code has a bug: one active secret per account, one
open application per account, one delivery per fact and recipient.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    false,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

from shared.ids import new_id
from shared.security.service_accounts import CONSOLE, login
from shared.synthetic import TEST


class Base(DeclarativeBase):
    """The declarative base; its naming convention lets migrations refer to constraints by name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own attribute
        datetime: DateTime(timezone=True),
        UUID: Uuid(),
        bytes: LargeBinary(),
        str: Text(),
        list[str]: ARRAY(Text()),
        dict[str, Any]: JSONB(),
    }


# --- services.accounts -----------------------------------------------------------------------


class Account(Base):
    """A business."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index(
            "ix_accounts_company_name",
            "company_name",
            postgresql_using="gin",
            postgresql_ops={"company_name": "gin_trgm_ops"},
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    company_name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)  # stored in lower case
    # Deferred, because only services.accounts may read it (see grants.py).
    password_hash: Mapped[str] = mapped_column(deferred=True)
    email_verified_at: Mapped[datetime | None]
    # Setting it fires a trigger that ends the approval, and so the secrets, and frees the address.
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PendingProof(Base):
    """An operation that is completed by a code sent by email.

    A registration becomes an account only when its address is proved. Several registrations of one
    address may be pending at the same time, each with its own password and code.
    """

    __tablename__ = "pending_proofs"
    __table_args__ = (
        CheckConstraint(
            "purpose IN ('registration', 'password_reset', 'new_address', 'reply_to')", "purpose"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    purpose: Mapped[str] = mapped_column(String(16))
    email: Mapped[str] = mapped_column(index=True)  # recipient of the code, in lower case
    account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    company_name: Mapped[str] = mapped_column(default="", server_default="")
    password_hash: Mapped[str | None]
    network: Mapped[str]  # of the client that requested it
    code_id: Mapped[UUID]
    code_hash: Mapped[bytes]
    # Failed attempts from `network` and from elsewhere, counted separately so that a stranger
    # cannot use up the attempts of the owner.
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    strange_attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    code_made_at: Mapped[datetime]
    code_expires_at: Mapped[datetime]
    # Whether, as far as can be determined, only its initiator has requested the code.
    is_named: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class EmailSender(Base):
    """The display name, reply address, language and time zone of a business's emails.

    The defaults for a missing row or an empty value are our own sender, English and UTC.
    """

    __tablename__ = "email_senders"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    display_name: Mapped[str] = mapped_column(default="", server_default="")
    reply_to: Mapped[str] = mapped_column(default="", server_default="")  # proved
    language: Mapped[str] = mapped_column(default="", server_default="")  # ISO 639-1
    time_zone: Mapped[str] = mapped_column(default="", server_default="")  # IANA name
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KnownNetwork(Base):
    """A network from which an account has signed in; sign-ins from it have their own limit."""

    __tablename__ = "known_networks"
    __table_args__ = (UniqueConstraint("account_id", "network"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    network: Mapped[str]
    first_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Accurate to a day, so that not every sign-in writes it.
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class AttemptCount(Base):
    """The number of attempts in a time window; see `shared/db/attempts.py`."""

    __tablename__ = "attempt_counts"

    key: Mapped[bytes] = mapped_column(primary_key=True)  # keyed hash of the counted subject
    count: Mapped[int] = mapped_column(Integer)
    ends_at: Mapped[datetime] = mapped_column(index=True)


class OneTimeCode(Base):
    """Replaced by `PendingProof`; kept while workers of the previous version may still run."""

    __tablename__ = "one_time_codes"

    account_id: Mapped[UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True
    )
    code_id: Mapped[UUID]
    code_hash: Mapped[bytes]
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AccountSession(Base):
    """A sign-in session, including its renewals."""

    __tablename__ = "account_sessions"
    __table_args__ = (Index("ix_account_sessions_over", text("coalesce(ended_at, expires_at)")),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    refresh_id: Mapped[UUID]  # the current refresh token; using an earlier one ends the session
    network: Mapped[str]
    client: Mapped[str]  # User-Agent
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    renewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]  # absolute: a renewal does not extend it
    ended_at: Mapped[datetime | None]


class RevokedToken(Base):
    """A used refresh token of earlier versions, which had no sessions; no longer written."""

    __tablename__ = "revoked_tokens"

    token_id: Mapped[UUID] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


# --- services.ingress ------------------------------------------------------------------------


class WebhookRequest(Base):
    """An accepted or refused webhook request of an account.

    Kept for `RETENTION_REQUEST_LOG_DAYS`. One partition per day, created and dropped by the
    function `keep_webhook_request_partitions`. No primary key, because no query would use its
    index.
    """

    __tablename__ = "webhook_requests"

    at: Mapped[datetime]  # arrival time by the ingress's clock
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True, cache=1000))
    account_id: Mapped[UUID]
    accepted: Mapped[bool]
    code: Mapped[str]  # `accepted`, or the error code
    event_type: Mapped[str | None]
    event_id: Mapped[UUID | None]
    order_id: Mapped[UUID | None]
    idempotency_key: Mapped[str | None]  # or webhook-id
    secret_id: Mapped[UUID | None]
    # Together with the body and the secret, everything needed to recompute the signature.
    scheme: Mapped[str]
    signature: Mapped[str | None]
    webhook_timestamp: Mapped[str | None]
    body_sha256: Mapped[bytes | None]
    body_bytes: Mapped[int | None]
    latency_us: Mapped[int]
    client_address: Mapped[str]
    note: Mapped[str | None]  # why a valid request recorded nothing
    order_number: Mapped[str | None]  # set with `note`: the order may be in no table
    fault: Mapped[str | None]  # why a shop's delivery was refused; quotes none of its content

    __mapper_args__ = {"primary_key": ["at", "id"]}  # noqa: RUF012 - SQLAlchemy's own attribute
    __table_args__ = (
        Index(
            "ix_webhook_requests_account_id_accepted_at_id", "account_id", "accepted", "at", "id"
        ),
        Index(
            "ix_webhook_requests_event_id",
            "event_id",
            postgresql_where=text("event_id IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (at)"},
    )


class WebhookSecretUse(Base):
    """Uses of a secret in one hour; a ring of 24 rows per secret, so the table does not grow."""

    __tablename__ = "webhook_secret_use"

    secret_id: Mapped[UUID] = mapped_column(primary_key=True)
    hour_of_day: Mapped[int] = mapped_column(SmallInteger, primary_key=True)  # of `hour`, in UTC
    hour: Mapped[datetime]  # the hour counted in this row
    accepted: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[datetime]


# --- services.kyc ----------------------------------------------------------------------------


def bare(number: Any) -> ColumnElement[str]:
    """Return a registration number in lower case without white space and punctuation.

    Args:
        number: a column or an expression.
    """
    # Literals, because the expression must match that of the index.
    signs: ColumnElement[str] = literal_column("'[[:space:][:punct:]]'")
    empty: ColumnElement[str] = literal_column("''")
    flags: ColumnElement[str] = literal_column("'g'")
    return func.regexp_replace(func.lower(number), signs, empty, flags)


class KycApplication(Base):
    """A KYC submission. An account has at most one that is pending or approved."""

    __tablename__ = "kyc_applications"
    __table_args__ = (
        Index(
            "uq_kyc_applications_open",
            "account_id",
            unique=True,
            postgresql_where=text("status IN ('pending', 'approved')"),
        ),
        Index("ix_kyc_applications_registration_number", "business_registration_number"),
        Index("ix_kyc_applications_status_submitted_at_id", "status", "submitted_at", "id"),
        Index(
            "ix_kyc_applications_status_decided",
            "status",
            text("coalesce(decided_at, submitted_at)"),
            "id",
        ),
        CheckConstraint(
            "status IN ('pending', 'approved', 'rejected', 'revoked', 'incomplete')", "status"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    business_registration_number: Mapped[str]
    business_address: Mapped[str]
    contact_person_details: Mapped[str]
    status: Mapped[str] = mapped_column(String(16))  # see `services/kyc/states.py`
    reason: Mapped[str] = mapped_column(default="", server_default="")
    submitted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None]


def kyc_state(status: str, decided_at: datetime | None) -> str:
    """Return the version of an application's state, by which a decision names the reviewed state.

    Args:
        status: of the application.
        decided_at: time of the latest decision; None if there is none.
    """
    return status if decided_at is None else f"{status} {decided_at.astimezone(UTC).isoformat()}"


Index(
    "ix_kyc_applications_bare_number",
    bare(KycApplication.business_registration_number),
    KycApplication.submitted_at,
    KycApplication.id,
)


class KycNote(Base):
    """An operator's note on an application for other operators; never shown to the business.

    A trigger refuses changes.
    """

    __tablename__ = "kyc_notes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    application_id: Mapped[UUID] = mapped_column(ForeignKey("kyc_applications.id"), index=True)
    written_by: Mapped[str]
    note: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KycDecision(Base):
    """One person's decision on an application that needs several people.

    `person` identifies the decider; `decided_by` is their name in the audit log.
    """

    __tablename__ = "kyc_decisions"
    __table_args__ = (CheckConstraint("decision IN ('approve', 'revoke')", "decision"),)

    application_id: Mapped[UUID] = mapped_column(
        ForeignKey("kyc_applications.id", ondelete="CASCADE"), primary_key=True
    )
    decision: Mapped[str] = mapped_column(String(16), primary_key=True)
    person: Mapped[str] = mapped_column(primary_key=True)
    decided_by: Mapped[str]
    reason: Mapped[str] = mapped_column(default="", server_default="")
    message_id: Mapped[UUID]
    needed: Mapped[int] = mapped_column(SmallInteger)
    decided_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]

    @classmethod
    def is_of_removed_user(cls) -> ColumnElement[bool]:
        """Whether it was made on the console by a user who has been removed since.

        Decisions sent with a broker user of one's own need no console user.
        """
        on_console = cls.decided_by.endswith(f" ({login(CONSOLE)})", autoescape=True)
        is_user = select(OpsUser.id).where(OpsUser.name == cls.person).exists()
        return and_(on_console, ~is_user)


# --- services.secrets ------------------------------------------------------------------------


class WebhookSecret(Base):
    """A sealed webhook secret: `active` -> `retiring` -> `expired`, or `revoked`.

    An account has one active secret, and optionally one for test mode.

    Triggers ensure that a secret is valid only while its business is approved, and that no state
    is entered again.

    `expires_at` is the end of validity in every state; retirement brings it forward if the overlap
    ends earlier.

    A secret with a `platform` was generated by that platform, which signs with it for one of the
    business's shops. It does not expire.
    """

    __tablename__ = "webhook_secrets"
    __table_args__ = (
        Index(
            "uq_webhook_secrets_active",
            "account_id",
            "platform",
            "shop",
            "is_test",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
        Index(
            "ix_webhook_secrets_due",
            "expires_at",
            postgresql_where=text("state IN ('active', 'retiring')"),
        ),
        CheckConstraint("state IN ('active', 'retiring', 'expired', 'revoked')", "state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    platform: Mapped[str] = mapped_column(default="", server_default="")  # empty: generated by us
    shop: Mapped[str] = mapped_column(default="", server_default="")  # as the business names it
    # SHA-256 of the whole whsk_ string; random for a platform's secret, which is never sent.
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    sealed: Mapped[bytes]  # the secret, sealed for the row's id
    is_test: Mapped[bool] = mapped_column(default=False, server_default=false())
    state: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    replaced_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_with: Mapped[UUID | None]  # the application whose approval was revoked
    warned_at: Mapped[datetime | None]
    last_warned_at: Mapped[datetime | None]  # one day before the end; only of a secret in use
    # Set by a trigger at every change, including manual ones. The caches poll by them: `change`
    # orders two versions of a row; `changed_in`, the transaction, finds rows not read yet.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


class WebhookPublicKey(Base):
    """An Ed25519 public key that verifies a business's signatures: `active`, then `revoked`.

    The triggers of the secrets apply: a key is active only while its business is approved.
    """

    __tablename__ = "webhook_public_keys"
    __table_args__ = (
        Index(
            "uq_webhook_public_keys_active",
            "account_id",
            "public_key",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
        CheckConstraint("state IN ('active', 'revoked')", "state"),
        CheckConstraint("octet_length(public_key) = 32", "public_key"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    public_key: Mapped[bytes]
    state: Mapped[str] = mapped_column(String(16))
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    revoked_with: Mapped[UUID | None]  # the application whose approval was revoked
    # Set by a trigger, like those of `WebhookSecret`.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


class WebhookPolicy(Base):
    """Restrictions on an account's requests; an account without a row has the defaults.

    `allowed_networks` are CIDR networks (IPv4 or IPv6); empty allows any. `rate_per_second` applies
    per worker; NULL means ACCOUNT_RATE_PER_SECOND. `standard_webhooks_only` refuses the schemes
    that cannot detect a replay.
    """

    __tablename__ = "webhook_policies"
    __table_args__ = (CheckConstraint("rate_per_second > 0", "rate_per_second"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    allowed_networks: Mapped[list[str]] = mapped_column(server_default="{}")
    rate_per_second: Mapped[int | None] = mapped_column(Integer)
    standard_webhooks_only: Mapped[bool] = mapped_column(server_default=false())
    blocked_at: Mapped[datetime | None]  # by ops; sign-ins and webhooks are refused
    # Set by a trigger, like those of `WebhookSecret`.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


# --- services.orders -------------------------------------------------------------------------


class Order(Base):
    """An order with its current status."""

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_account_id_accepted_at_id", "account_id", "accepted_at", "id"),
        # Partial, because counts of live orders subtract the few test orders.
        Index(
            "ix_orders_test", "account_id", "accepted_at", "id", postgresql_where=text("is_test")
        ),
        Index("ix_orders_test_accepted_at", "accepted_at", postgresql_where=text("is_test")),
        Index("ix_orders_test_recorded_at", "recorded_at", postgresql_where=text("is_test")),
        # Across all businesses: a person has few orders.
        Index("ix_orders_customer_email", text("lower(customer_email)")),
        # Only orders of shops; elsewhere the id is derived from the number.
        Index(
            "ix_orders_of_shops",
            "order_number",
            "account_id",
            postgresql_where=text("metadata ? 'shop'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    customer_name: Mapped[str]
    customer_email: Mapped[str]
    customer_phone: Mapped[str]
    item_summary: Mapped[str]
    address: Mapped[str]
    tracking_status: Mapped[str] = mapped_column(String(24))
    status_at: Mapped[datetime]  # the update's time; see services/orders/progress.py
    status_event_id: Mapped[UUID]  # the message with the current status; at first the order's id
    accepted_at: Mapped[datetime]  # the sender's timestamp, or else the arrival time
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The sender's number. The id is derived from it (shared/ids.py), except for orders of shops.
    order_number: Mapped[str | None]
    sent_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    # Tracking by field, and for each field the message that set it: its status, time and id.
    tracking: Mapped[dict[str, Any] | None]
    tracking_said: Mapped[dict[str, Any] | None]
    # Number of the tracking link that is valid; see shared/security/tracking.py.
    tracking_link: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    is_test: Mapped[bool] = mapped_column(default=False, server_default=false())

    @hybrid_property
    def is_live(self) -> bool:
        """Whether the order counts in figures and lists: test orders have their own."""
        return not self.is_test

    @is_live.inplace.expression
    @classmethod
    def _is_live(cls) -> ColumnElement[bool]:
        return ~cls.is_test

    @classmethod
    def has_number_in_shop(cls, number: str) -> ColumnElement[bool]:
        """Whether the order came from a shop and has this number, which its id is not derived from.

        Args:
            number: normalised by `shared.ids.normalised_number`.
        """
        return and_(cls.order_number == number, cls.sent_metadata.has_key("shop"))


class OrderStatusHistory(Base):
    """All status updates of an order, including those that came too late to apply."""

    __tablename__ = "order_status_history"
    __table_args__ = (
        # For retention; few rows have either.
        Index(
            "ix_order_status_history_noted_at",
            "at",
            postgresql_where=text("note <> '' OR tracking IS NOT NULL"),
        ),
        Index(
            "ix_order_status_history_order_id_at_recorded_at",
            "order_id",
            "at",
            text("recorded_at NULLS FIRST"),
        ),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]
    tracking_status: Mapped[str] = mapped_column(String(24))
    note: Mapped[str] = mapped_column(default="", server_default="")
    at: Mapped[datetime]  # the update's time
    recorded_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    applied: Mapped[bool]
    tracking: Mapped[dict[str, Any] | None]  # the tracking fields of this message


CONFLICT_EMAIL = "lower((event -> 'customer_details') ->> 'email')"
"""The customer's address in a conflict's event; the expression of the index."""


class OrderConflict(Base):
    """A different order that was sent under the number or key of a recorded one."""

    __tablename__ = "order_conflicts"
    __table_args__ = (
        Index(
            "ix_order_conflicts_email",
            text(CONFLICT_EMAIL),
            postgresql_where=text("event IS NOT NULL"),
        ),
        Index(
            "ix_order_conflicts_kept_order_id",
            "order_id",
            postgresql_where=text("event IS NOT NULL"),
        ),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)  # the message's id
    order_id: Mapped[UUID] = mapped_column(index=True)
    account_id: Mapped[UUID]
    event: Mapped[dict[str, Any] | None]  # the order as sent; NULL beyond the first 20
    at: Mapped[datetime] = mapped_column(index=True)  # the event's time
    recorded_at: Mapped[datetime | None] = mapped_column(server_default=func.now())


class WaitingUpdate(Base):
    """An update that arrived before its order.

    The row is kept when the order arrives; the history then has the event too.
    """

    __tablename__ = "waiting_updates"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)  # the message's id
    account_id: Mapped[UUID]
    order_id: Mapped[UUID]  # given by the sender, or derived from the given number
    order_number: Mapped[str | None]
    since: Mapped[datetime] = mapped_column(index=True)
    given_up_at: Mapped[datetime | None]


WORDS_OF_CANCELLATIONS = "(cancel_reason <> '' OR cancelled_before @? '$[*][2] ? (@ <> \"\")')"
"""Whether an awaited order has a cancellation reason; the exact expression of the index."""


class AwaitedOrder(Base):
    """A shop's order that is not placed yet or has no address; an event with both creates it.

    A cancellation in between is applied if the order proves to have been placed before it.
    """

    __tablename__ = "awaited_orders"
    __table_args__ = (
        Index(
            "ix_awaited_orders_words_since",
            "since",
            postgresql_where=text(WORDS_OF_CANCELLATIONS),
        ),
    )

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    since: Mapped[datetime] = mapped_column(index=True)
    cancelled_at: Mapped[datetime | None]  # the shop's time
    cancelled_by: Mapped[UUID | None]  # the message's id
    cancel_reason: Mapped[str | None]  # in the shop's words
    cancelled_before: Mapped[list[Any] | None] = mapped_column(JSONB)
    """Earlier cancellations, newest first: each a list of time, message id and reason."""


class RemovedOrder(Base):
    """An order that was removed and whose history or conflicts are still there.

    Also written by `clear_test_orders`, for the public app; see `services/orders/removal`.
    """

    __tablename__ = "removed_orders"
    __table_args__ = (Index("ix_removed_orders_account_id_order_id", "account_id", "order_id"),)

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    # Whether its messages are forgotten too: a cleared test order may be sent again.
    is_cleared: Mapped[bool] = mapped_column(default=False, server_default=false())


# --- services.notifier -----------------------------------------------------------------------


EMAIL_OF_TEST = "template LIKE '" + TEST.replace("_", r"\_") + "%'"
"""Whether an email is about a test order; the exact expression of the index."""


class EmailDelivery(Base):
    """One email: the notification of one recipient about one fact."""

    __tablename__ = "email_deliveries"
    __table_args__ = (
        UniqueConstraint("fact_id", "recipient"),
        Index("ix_email_deliveries_subject_id", "subject_id"),
        Index("ix_email_deliveries_at", "at"),  # for the newest, and for retention
        Index(
            "ix_email_deliveries_unsent_state_at_id",
            "state",
            "at",
            "id",
            postgresql_where=text("state <> 'sent'"),
        ),
        Index("ix_email_deliveries_tests_at", "at", postgresql_where=text(EMAIL_OF_TEST)),
        CheckConstraint(
            "state IN ('sent', 'undeliverable', 'unsubscribed', 'suppressed')", "state"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    fact_id: Mapped[UUID]
    subject_id: Mapped[str]  # the order or account it is about
    recipient: Mapped[str]
    template: Mapped[str]
    message_id: Mapped[str]  # RFC 5322; derived, so that a duplicate can be recognised
    state: Mapped[str] = mapped_column(String(16))
    response: Mapped[str] = mapped_column(default="", server_default="")
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Suppression(Base):
    """A customer to whom a business no longer sends email: unsubscribed, or a refused address.

    `order_id` limits it to one order; NULL means all of the business's. `address_hash` is keyed per
    account (`shared/security/unsubscribe_tokens.py`) with the key of `key_id`. `address` is shown
    to the business; it is NULL once the customer was erased.
    """

    __tablename__ = "suppressions"
    __table_args__ = (
        Index(
            "uq_suppressions_all",
            "account_id",
            "address_hash",
            "cause",
            unique=True,
            postgresql_where=text("order_id IS NULL"),
        ),
        Index(
            "uq_suppressions_order",
            "order_id",
            "address_hash",
            unique=True,
            postgresql_where=text("order_id IS NOT NULL"),
        ),
        Index("ix_suppressions_account_id_id", "account_id", "id"),
        Index("ix_suppressions_account_id_cause_id", "account_id", "cause", "id"),
        Index("ix_suppressions_refused_since", "since", postgresql_where=text("cause = 'refused'")),
        Index(
            "ix_suppressions_untold",
            "account_id",
            postgresql_where=text("cause = 'refused' AND told_at IS NULL"),
        ),
        CheckConstraint(
            "cause = 'unsubscribed' OR cause = 'refused' AND order_id IS NULL", "cause"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID]
    cause: Mapped[str] = mapped_column(String(16))  # unsubscribed, refused
    order_id: Mapped[UUID | None]
    address_hash: Mapped[bytes]
    key_id: Mapped[bytes]
    address: Mapped[str | None]
    by_order_id: Mapped[UUID] = mapped_column(index=True)  # the order of the email that caused it
    smtp_code: Mapped[int | None] = mapped_column(SmallInteger)
    response: Mapped[str] = mapped_column(default="", server_default="")  # the mail server's text
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    told_at: Mapped[datetime | None]  # when the business was notified of a refused address


class RefusalWarning(Base):
    """A warning about refused addresses that is not complete yet: of so many addresses so far."""

    __tablename__ = "refusal_warnings"

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    addresses: Mapped[int] = mapped_column(BigInteger)


class EmailLease(Base):
    """An email that is being sent: until `good_until` other notifiers do not send it."""

    __tablename__ = "email_leases"

    fact_id: Mapped[UUID] = mapped_column(primary_key=True)
    good_until: Mapped[datetime]


# --- services.ops ----------------------------------------------------------------------------


class OpsUser(Base):
    """A user of the ops console."""

    __tablename__ = "ops_users"
    __table_args__ = (CheckConstraint("rights <@ '{kyc,messages,customers}'::varchar[]", "rights"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)  # in lower case
    password_hash: Mapped[str]
    rights: Mapped[list[str]] = mapped_column(ARRAY(String(16)), server_default="{}")
    # Read by the console of the previous version.
    role: Mapped[str] = mapped_column(
        String(16),
        Computed(
            "CASE WHEN rights @> '{kyc,messages,customers}'::varchar[] THEN 'act' ELSE 'watch' END",
            persisted=True,
        ),
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OpsSession(Base):
    """A browser session of the console; only the hash of its token is stored."""

    __tablename__ = "ops_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[UUID] = mapped_column(ForeignKey("ops_users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    note: Mapped[str] = mapped_column(default="", server_default="")  # shown once, on the next page
    # Identifies the session on pages, which never show the token.
    id: Mapped[UUID] = mapped_column(unique=True, server_default=func.gen_random_uuid())
    network: Mapped[str] = mapped_column(default="", server_default="")
    client: Mapped[str] = mapped_column(default="", server_default="")  # User-Agent
    # The password was right; until the second factor is too, the session can only submit a code.
    awaits_code: Mapped[bool] = mapped_column(default=False, server_default=false())


class PortalSession(Base):
    """A browser session of the portal; written by services.portal.

    Only the hash of its token is stored.
    """

    __tablename__ = "portal_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    # The API tokens that the portal uses for this session; sealed, bound to the hash.
    sealed: Mapped[bytes]
    expires_at: Mapped[datetime]  # of the refresh token
    note: Mapped[str] = mapped_column(default="", server_default="")  # shown once, on the next page


class OpsSecondFactor(Base):
    """A user's TOTP secret (RFC 6238), sealed and bound to the user's id."""

    __tablename__ = "ops_second_factors"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("ops_users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[bytes | None]
    # A secret not confirmed by a code yet; when it was shown, and the session's token hash.
    offered: Mapped[bytes | None]
    offered_at: Mapped[datetime | None]
    offered_to: Mapped[bytes | None]
    confirmed_at: Mapped[datetime | None]
    # Time step of the newest accepted code: it and earlier ones are refused (RFC 6238, 5.2).
    last_step: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    # Since the last accepted code; shown to the user at the next sign-in.
    wrong_codes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")


class OpsRecoveryCode(Base):
    """The hash of a code that replaces a lost second factor; deleted when used."""

    __tablename__ = "ops_recovery_codes"

    code_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[UUID] = mapped_column(ForeignKey("ops_users.id", ondelete="CASCADE"))


class OpsAttemptCount(Base):
    """The number of sign-in attempts at the console; see `shared/db/attempts.py`."""

    __tablename__ = "ops_attempt_counts"

    key: Mapped[bytes] = mapped_column(primary_key=True)  # keyed hash of the counted subject
    count: Mapped[int] = mapped_column(Integer)
    ends_at: Mapped[datetime] = mapped_column(index=True)


class OpsTrouble(Base):
    """An episode of an alert, from its first to its last sighting; see ops' `episodes.py`."""

    __tablename__ = "ops_troubles"
    __table_args__ = (
        # One open episode per key, however many consoles poll.
        Index(
            "ix_ops_troubles_open", "key", unique=True, postgresql_where=text("ended_at IS NULL")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    key: Mapped[str]
    level: Mapped[str] = mapped_column(String(16))
    about: Mapped[str] = mapped_column(String(64))
    text: Mapped[str]
    began_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str] = mapped_column(default="", server_default="")
    acknowledged_at: Mapped[datetime | None]
    note: Mapped[str] = mapped_column(default="", server_default="")
    muted_by: Mapped[str] = mapped_column(default="", server_default="")
    muted_until: Mapped[datetime | None]  # if muted; NULL: until the episode ends
    # Notifications sent, by channel: the kind, the time and the figure.
    told: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    figure: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    accepted_figure: Mapped[int | None] = mapped_column(BigInteger)


# --- shared.bus, on behalf of the service that calls it: inbox and outbox ------------------------


class InboxEntry(Base):
    """A message that a consumer has handled, so that a redelivery changes nothing."""

    __tablename__ = "inbox"
    __table_args__ = (
        # Derived ids (UUIDv5) need `handled_at`; a UUIDv7 contains its own time. One index per
        # kind, so that expired rows come first and pruning reads no others.
        Index(
            "ix_inbox_derived",
            "consumer",
            "handled_at",
            postgresql_where=text("substr(message_id::text, 15, 1) = '5'"),
        ),
        Index(
            "ix_inbox_by_id",
            "consumer",
            "message_id",
            postgresql_where=text("substr(message_id::text, 15, 1) <> '5'"),
        ),
    )

    consumer: Mapped[str] = mapped_column(String(64), primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    handled_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Of a command, whose id its sender chooses: the SHA-256 of its content, followed by that of
    # the person who issued it, if named.
    digest: Mapped[bytes | None]


class OutboxMessage(Base):
    """A message to be published by the relay, and the state of its publication.

    Fresh: `next_try_at` is NULL. Unconfirmed: it was sent without a confirm, and is sent again from
    `next_try_at` on. Parked (`parked_at`): publishing failed for `reason`; it is retried too, or
    edited or discarded by ops staff. `reason` is empty during a try.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            "ix_outbox_next_try_at",
            "next_try_at",
            postgresql_where=text("next_try_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_parked",
            "sequence",
            "parked_at",
            postgresql_where=text("parked_at IS NOT NULL"),
        ),
        # The limit of AMQP short strings, in bytes: see shared/bus/contract/message.py.
        CheckConstraint(
            " AND ".join(
                f"octet_length({column}) <= 255"
                for column in (
                    "exchange",
                    "routing_key",
                    "type",
                    "correlation_id",
                    "source",
                    "traceparent",
                )
            ),
            "short_strings",
        ),
        CheckConstraint(
            "time >= '1970-01-01 00:00+00' AND time < '9999-12-31 00:00+00'",
            "time",
        ),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    message_id: Mapped[UUID]
    exchange: Mapped[str] = mapped_column(String(64))
    routing_key: Mapped[str] = mapped_column(String(64))
    type: Mapped[str] = mapped_column(String(64))
    correlation_id: Mapped[str]
    source: Mapped[str] = mapped_column(String(64))
    traceparent: Mapped[str | None]
    time: Mapped[datetime]
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_try_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(server_default="")
    written_by: Mapped[str] = mapped_column(server_default=text("CURRENT_USER"))
    # The role that edited the message, set by a trigger; empty if unedited.
    mended_by: Mapped[str] = mapped_column(server_default="")


class Rehearsal(Base):
    """A dry run of a message, requested by ops staff and answered by the service that handles it.

    Unlogged; deleted when the answer is read, or after a minute. See
    `shared/bus/consume/rehearsals/requests.py`.
    """

    __tablename__ = "rehearsals"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - SQLAlchemy's own attribute

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    queue: Mapped[str] = mapped_column(String(64))
    message: Mapped[bytes]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    taken_at: Mapped[datetime | None]
    report: Mapped[bytes | None]


# --- services.audit --------------------------------------------------------------------------


AUDIT_WORDS = (
    "(((((((actor || ' ') || address) || ' ') || correlation_id) || ' ') || type) || ' ') || data"
)
"""The searched text of a row of the audit log; the exact expression of the index."""


class AuditEntry(Base):
    """An entry of the audit log. Append-only: a trigger refuses updates and deletes by any role.

    Each row holds the hash of the one before and its own; see `shared/security/audit_chain.py`.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_happened_at", "happened_at"),
        Index("ix_audit_log_correlation_id_sequence", "correlation_id", "sequence"),
        Index("ix_audit_log_type", "type", "sequence", postgresql_ops={"type": "text_pattern_ops"}),
        Index(
            "ix_audit_log_words",
            literal_column(AUDIT_WORDS).label("words"),
            postgresql_using="gin",
            postgresql_ops={"words": "gin_trgm_ops"},
        ),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[UUID] = mapped_column(unique=True)
    type: Mapped[str]
    happened_at: Mapped[datetime]
    actor: Mapped[str]  # who
    address: Mapped[str]  # from where
    correlation_id: Mapped[str]
    data: Mapped[str]  # the event's JSON, byte for byte, because it is hashed
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())  # not hashed


# --- shared.telemetry.heartbeat, on behalf of every service: each writes its own rows ------------


class ServiceHeartbeat(Base):
    """A running process and the state of its queues; see `shared/telemetry/heartbeat.py`."""

    __tablename__ = "service_heartbeats"

    service: Mapped[str] = mapped_column(String(64), primary_key=True)
    instance: Mapped[str] = mapped_column(String(128), primary_key=True)  # host and process
    version: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    queues: Mapped[dict[str, Any]]


# Before gunicorn forks; otherwise each worker would do it at its first query.
configure_mappers()
