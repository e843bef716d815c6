"""Every table. The comment above each group names the one service that writes it; others may read.

Constraints do the guarding: one active secret an account, one open application an account, one
delivery a fact and recipient. The constraints hold even where the code has a fault.
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
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.ids import new_id
from shared.security.service_accounts import CONSOLE, login


class Base(DeclarativeBase):
    """The declarative base; constraint names are fixed so that migrations can name them."""

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

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    company_name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)  # stored in lower case
    # Loaded when it is asked for: only services.accounts may read it (see grants.py).
    password_hash: Mapped[str] = mapped_column(deferred=True)
    email_verified_at: Mapped[datetime | None]
    # With it a trigger ends the approval, and so the secrets. The address is free again then.
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PendingProof(Base):
    """Something that waits for the code that was mailed for it, and for that one alone.

    A registration is no account until its address is proved: whoever registers an address first has
    nothing, and several may wait for the same one, each with its own password and code.
    """

    __tablename__ = "pending_proofs"
    __table_args__ = (
        CheckConstraint(
            "purpose IN ('registration', 'password_reset', 'new_address', 'reply_to')", "purpose"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    purpose: Mapped[str] = mapped_column(String(16))
    email: Mapped[str] = mapped_column(index=True)  # where the code goes, in lower case
    account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    company_name: Mapped[str] = mapped_column(default="", server_default="")
    password_hash: Mapped[str | None]
    network: Mapped[str]  # from where it was asked for
    code_id: Mapped[UUID]
    code_hash: Mapped[bytes]
    # Wrong tries from there, and from anywhere else: a stranger's use up nobody's but their own.
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    strange_attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    code_made_at: Mapped[datetime]
    code_expires_at: Mapped[datetime]
    # Whether nobody but who began it has asked for its code, as far as that can be seen.
    is_named: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class EmailSender(Base):
    """How the emails about a business's orders name it, and where answers to them go.

    And the language and the time zone of all its emails. An account without a row, or with an empty
    value, has ours, English and UTC.
    """

    __tablename__ = "email_senders"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    display_name: Mapped[str] = mapped_column(default="", server_default="")
    reply_to: Mapped[str] = mapped_column(default="", server_default="")  # proved
    language: Mapped[str] = mapped_column(default="", server_default="")  # ISO 639-1
    time_zone: Mapped[str] = mapped_column(default="", server_default="")  # IANA's name
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KnownNetwork(Base):
    """A network that an account was used from; its owner is let through from there."""

    __tablename__ = "known_networks"
    __table_args__ = (UniqueConstraint("account_id", "network"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    network: Mapped[str]
    first_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # To the day: not every sign-in writes it.
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class AttemptCount(Base):
    """How often something was tried since the count began; see `shared/db/attempts.py`."""

    __tablename__ = "attempt_counts"

    key: Mapped[bytes] = mapped_column(primary_key=True)  # a hash: of whom or where is not told
    count: Mapped[int] = mapped_column(Integer)
    ends_at: Mapped[datetime] = mapped_column(index=True)


class OneTimeCode(Base):
    """Of the version before, whose workers may still run; `PendingProof` is what is used now."""

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
    """A sign-in and all that it was renewed to, until it ends."""

    __tablename__ = "account_sessions"
    __table_args__ = (Index("ix_account_sessions_over", text("coalesce(ended_at, expires_at)")),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    refresh_id: Mapped[UUID]  # the one refresh token that renews it; any earlier one ends it
    network: Mapped[str]
    client: Mapped[str]  # what called itself so: User-Agent
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    renewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]  # however often it is renewed
    ended_at: Mapped[datetime | None]


class RevokedToken(Base):
    """A used refresh token of versions before, whose tokens have no session; nobody adds to it."""

    __tablename__ = "revoked_tokens"

    token_id: Mapped[UUID] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


# --- services.ingress ------------------------------------------------------------------------


class WebhookRequest(Base):
    """A webhook request that belongs to an account, accepted or refused.

    Kept for `RETENTION_REQUEST_LOG_DAYS`.
    A partition a day, made and dropped by the function `keep_webhook_request_partitions`. No key of
    its own: it would be an index that no question needs.
    """

    __tablename__ = "webhook_requests"

    at: Mapped[datetime]  # when it arrived, by the ingress's clock
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True, cache=1000))
    account_id: Mapped[UUID]
    accepted: Mapped[bool]
    code: Mapped[str]  # `accepted`, or that of the error
    event_type: Mapped[str | None]
    event_id: Mapped[UUID | None]
    order_id: Mapped[UUID | None]
    idempotency_key: Mapped[str | None]  # or webhook-id
    secret_id: Mapped[UUID | None]
    # With the body, whose hash is here, and the secret: all that its signature is made of.
    scheme: Mapped[str]
    signature: Mapped[str | None]
    webhook_timestamp: Mapped[str | None]
    body_sha256: Mapped[bytes | None]
    body_bytes: Mapped[int | None]
    latency_us: Mapped[int]
    client_address: Mapped[str]
    note: Mapped[str | None]  # why nothing was recorded of what was in order
    order_number: Mapped[str | None]  # of what has a note: its order may be in no book

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
    """How often a secret was used in an hour. A ring of 24 rows a secret, so nothing grows."""

    __tablename__ = "webhook_secret_use"

    secret_id: Mapped[UUID] = mapped_column(primary_key=True)
    hour_of_day: Mapped[int] = mapped_column(SmallInteger, primary_key=True)  # of `hour`, in UTC
    hour: Mapped[datetime]  # which hour is counted here: the latest of this name
    accepted: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[datetime]


# --- services.kyc ----------------------------------------------------------------------------


def bare(number: Any) -> ColumnElement[str]:
    """A registration number without what tells no two apart: case, white space, punctuation.

    Args:
        number: a column or an expression.
    """
    # Literals, so that it is the expression of the index.
    signs: ColumnElement[str] = literal_column("'[[:space:][:punct:]]'")
    nothing: ColumnElement[str] = literal_column("''")
    each: ColumnElement[str] = literal_column("'g'")
    return func.regexp_replace(func.lower(number), signs, nothing, each)


class KycApplication(Base):
    """One submission. An account has at most one that is pending or approved."""

    __tablename__ = "kyc_applications"
    __table_args__ = (
        Index(
            "uq_kyc_applications_open",
            "account_id",
            unique=True,
            postgresql_where=text("status IN ('pending', 'approved')"),
        ),
        Index("ix_kyc_applications_registration_number", "business_registration_number"),
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
    """How an application stands, as a decision on it says what was looked at.

    Args:
        status: of the application.
        decided_at: when it was decided on last; None: never.
    """
    return status if decided_at is None else f"{status} {decided_at.astimezone(UTC).isoformat()}"


Index(
    "ix_kyc_applications_bare_number",
    bare(KycApplication.business_registration_number),
    KycApplication.submitted_at,
    KycApplication.id,
)


class KycNote(Base):
    """What an operator wrote on an application, for other operators; never told to the business.

    A trigger keeps each as it was written.
    """

    __tablename__ = "kyc_notes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    application_id: Mapped[UUID] = mapped_column(ForeignKey("kyc_applications.id"), index=True)
    written_by: Mapped[str]
    note: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KycDecision(Base):
    """What one person has decided on an application that takes several of them.

    `person` is who they are, `decided_by` how the books name them.
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
    def is_of_nobody(cls) -> ColumnElement[bool]:
        """Whether it was decided on the console, by who is no user of it any more.

        Who decided by their own user of the broker need be none of the console's.
        """
        on_console = cls.decided_by.endswith(f" ({login(CONSOLE)})", autoescape=True)
        is_user = select(OpsUser.id).where(OpsUser.name == cls.person).exists()
        return and_(on_console, ~is_user)


# --- services.secrets ------------------------------------------------------------------------


class WebhookSecret(Base):
    """One webhook secret, sealed. `active` -> `retiring` -> `expired`; or `revoked` at once.

    An account has one that is active, and one of its test mode where it wants that.

    Triggers see to it that none is live whose business is not approved, and that none goes back.

    `expires_at` is the end of validity whatever the state: a retiring secret's is moved forward
    when its overlap is shorter than its own life.

    With a `platform`, the business has given it: that platform makes it, and signs with it for one
    of the business's shops. Such a one has no end of its own.
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
    platform: Mapped[str] = mapped_column(default="", server_default="")  # empty: ours
    shop: Mapped[str] = mapped_column(default="", server_default="")  # as the business names it
    # SHA-256 of the whole whsk_ string; of a given one random, since nothing sends it.
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    sealed: Mapped[bytes]  # the bytes, or what was given, sealed for the row's id
    is_test: Mapped[bool] = mapped_column(default=False, server_default=false())
    state: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    replaced_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_with: Mapped[UUID | None]  # the application whose approval was taken back
    warned_at: Mapped[datetime | None]
    last_warned_at: Mapped[datetime | None]  # a day ahead; told only while it is in use
    # Set by a trigger at every change, also one made by hand. The caches poll by them: `change`
    # tells which of two answers is newer; `changed_in`, the transaction, what nobody has seen yet.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


class WebhookPublicKey(Base):
    """A public key (Ed25519) that a business signs by. `active`, or `revoked` and never back.

    The triggers of the secrets hold here too: none is active whose business is not approved, and
    with the approval all end.
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
    revoked_with: Mapped[UUID | None]  # the application whose approval was taken back
    # Set by a trigger, as those of the secrets.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


class WebhookPolicy(Base):
    """How an account's requests are taken; an account without a row has the defaults.

    `allowed_networks` are CIDR (IPv4 or IPv6); none means from anywhere. `rate_per_second` holds a
    worker; NULL means ACCOUNT_RATE_PER_SECOND. With `standard_webhooks_only` no request is taken
    that a copy of it could not be told from.
    """

    __tablename__ = "webhook_policies"
    __table_args__ = (CheckConstraint("rate_per_second > 0", "rate_per_second"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    allowed_networks: Mapped[list[str]] = mapped_column(server_default="{}")
    rate_per_second: Mapped[int | None] = mapped_column(Integer)
    standard_webhooks_only: Mapped[bool] = mapped_column(server_default=false())
    blocked_at: Mapped[datetime | None]  # by ops; nobody signs in, no webhook is taken
    # Set by a trigger, as those of the secrets.
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    changed_in: Mapped[int] = mapped_column(BigInteger, server_default="0", index=True)


# --- services.orders -------------------------------------------------------------------------


class Order(Base):
    """One order, as its sender described it, and where it is now."""

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_account_id_accepted_at_id", "account_id", "accepted_at", "id"),
        # Of the few that are tests: what counts the others looks for these.
        Index(
            "ix_orders_test", "account_id", "accepted_at", "id", postgresql_where=text("is_test")
        ),
        Index("ix_orders_test_accepted_at", "accepted_at", postgresql_where=text("is_test")),
        Index("ix_orders_test_recorded_at", "recorded_at", postgresql_where=text("is_test")),
        # Of whichever business: a person has few.
        Index("ix_orders_customer_email", text("lower(customer_email)")),
        # Of shops' orders alone: where the id is derived from the number, it is the index.
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
    status_at: Mapped[datetime]  # when the sender said so; see services/orders/progress.py
    status_event_id: Mapped[UUID]  # the message that said so; the order's own id at first
    accepted_at: Mapped[datetime]  # as the sender stamped it, where it did
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The sender's own. The id is derived from it (shared/ids.py), but for the orders of shops.
    order_number: Mapped[str | None]
    sent_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    # What is known of the parcel by field, and for each which message said so: its status, stamp
    # and id.
    tracking: Mapped[dict[str, Any] | None]
    tracking_said: Mapped[dict[str, Any] | None]
    # Which link of its emails leads to its page; see shared/security/tracking.py.
    tracking_link: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    is_test: Mapped[bool] = mapped_column(default=False, server_default=false())

    @hybrid_property
    def is_live(self) -> bool:
        """The one rule by which test orders are in no figure and no list but their own."""
        return not self.is_test

    @is_live.inplace.expression
    @classmethod
    def _is_live(cls) -> ColumnElement[bool]:
        return ~cls.is_test

    @classmethod
    def has_number_in_shop(cls, number: str) -> ColumnElement[bool]:
        """Whether a shop calls an order so, of which its id does not tell.

        Args:
            number: as `shared.ids.normalised_number` makes it.
        """
        return and_(cls.order_number == number, cls.sent_metadata.has_key("shop"))


class OrderStatusHistory(Base):
    """Every status an order was said to have, also those that came too late to count."""

    __tablename__ = "order_status_history"
    __table_args__ = (
        # What is over: few have either.
        Index(
            "ix_order_status_history_noted_at",
            "at",
            postgresql_where=text("note <> '' OR tracking IS NOT NULL"),
        ),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(index=True)
    tracking_status: Mapped[str] = mapped_column(String(24))
    note: Mapped[str] = mapped_column(default="", server_default="")
    at: Mapped[datetime]  # when the sender said so
    recorded_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    applied: Mapped[bool]
    tracking: Mapped[dict[str, Any] | None]  # what this message said of the parcel


class OrderConflict(Base):
    """Another order that was sent under the number or key of one that was there already."""

    __tablename__ = "order_conflicts"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)  # the message's id
    order_id: Mapped[UUID] = mapped_column(index=True)
    account_id: Mapped[UUID]
    event: Mapped[dict[str, Any] | None]  # the order as it was sent this time; of some, no more
    at: Mapped[datetime] = mapped_column(index=True)  # when the sender said so
    recorded_at: Mapped[datetime | None] = mapped_column(server_default=func.now())


class WaitingUpdate(Base):
    """An update of an order that its account did not have when it came.

    It stays when the order came after all: then the history has the event too.
    """

    __tablename__ = "waiting_updates"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)  # the message's id
    account_id: Mapped[UUID]
    order_id: Mapped[UUID]  # as the sender wrote it, or of the number that it wrote
    order_number: Mapped[str | None]
    since: Mapped[datetime] = mapped_column(index=True)
    given_up_at: Mapped[datetime | None]


class AwaitedOrder(Base):
    """An order of a shop that is not placed yet or has no address; what has both creates it.

    Where the shop has cancelled it meanwhile that counts if it turns out to be placed before.
    """

    __tablename__ = "awaited_orders"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    since: Mapped[datetime] = mapped_column(index=True)
    cancelled_at: Mapped[datetime | None]  # as the shop says
    cancelled_by: Mapped[UUID | None]  # the message's id
    cancel_reason: Mapped[str | None]  # in the shop's words


# --- services.notifier -----------------------------------------------------------------------


class EmailDelivery(Base):
    """One email: a fact, told to one recipient by one template, at most once."""

    __tablename__ = "email_deliveries"
    __table_args__ = (
        UniqueConstraint("fact_id", "recipient"),
        Index("ix_email_deliveries_subject_id", "subject_id"),
        Index("ix_email_deliveries_at", "at"),  # the newest, and what is over
        Index(
            "ix_email_deliveries_unsent_at_id",
            "at",
            "id",
            postgresql_where=text("state <> 'sent'"),
        ),
        CheckConstraint(
            "state IN ('sent', 'undeliverable', 'unsubscribed', 'suppressed')", "state"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    fact_id: Mapped[UUID]
    subject_id: Mapped[str]  # the order or account the story is about
    recipient: Mapped[str]
    template: Mapped[str]
    message_id: Mapped[str]  # of RFC 5322; derived, so that a double can be recognised
    state: Mapped[str] = mapped_column(String(16))
    response: Mapped[str] = mapped_column(default="", server_default="")
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Suppression(Base):
    """A customer whom one business mails no more: they have left, or their address was refused.

    `order_id`: of that order alone; NULL is all of the business's. `address_hash` is keyed and of
    one account (`shared/security/unsubscribe_tokens.py`), `key_id` says by which key. The address
    beside it is for the business to read; it is NULL once the customer was erased.
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
    by_order_id: Mapped[UUID] = mapped_column(index=True)  # whose email it was
    smtp_code: Mapped[int | None] = mapped_column(SmallInteger)
    response: Mapped[str] = mapped_column(default="", server_default="")  # the mail server's words
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    told_at: Mapped[datetime | None]  # of what was refused: when its business was told


class EmailLease(Base):
    """An email that a mail server thinks about: other notifiers leave it alone for so long."""

    __tablename__ = "email_leases"

    fact_id: Mapped[UUID] = mapped_column(primary_key=True)
    good_until: Mapped[datetime]


# --- services.ops ----------------------------------------------------------------------------


class OpsUser(Base):
    """Somebody who may sign in to the ops console."""

    __tablename__ = "ops_users"
    __table_args__ = (CheckConstraint("rights <@ '{kyc,messages,customers}'::varchar[]", "rights"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)  # in lower case
    password_hash: Mapped[str]
    rights: Mapped[list[str]] = mapped_column(ARRAY(String(16)), server_default="{}")
    # For the console of the version before, which reads it.
    role: Mapped[str] = mapped_column(
        String(16),
        Computed(
            "CASE WHEN rights @> '{kyc,messages,customers}'::varchar[] THEN 'act' ELSE 'watch' END",
            persisted=True,
        ),
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OpsSession(Base):
    """A signed-in browser. Its token is in the browser's cookie alone; here is its hash."""

    __tablename__ = "ops_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[UUID] = mapped_column(ForeignKey("ops_users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    note: Mapped[str] = mapped_column(default="", server_default="")  # shown once, on the next page
    # By which its user names it: of the token nothing is shown.
    id: Mapped[UUID] = mapped_column(unique=True, server_default=func.gen_random_uuid())
    network: Mapped[str] = mapped_column(default="", server_default="")
    client: Mapped[str] = mapped_column(default="", server_default="")  # as it calls itself
    # The password was right; until the code is, it is good for giving one.
    awaits_code: Mapped[bool] = mapped_column(default=False, server_default=false())


class PortalSession(Base):
    """A browser that is signed in to the portal; written by services.portal.

    Its token is in the browser's cookie alone; here is its hash.
    """

    __tablename__ = "portal_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    # The tokens of the API, by which the portal asks for it; bound to the hash.
    sealed: Mapped[bytes]
    expires_at: Mapped[datetime]  # of the refresh token
    note: Mapped[str] = mapped_column(default="", server_default="")  # shown once, on the next page


class OpsSecondFactor(Base):
    """What a user's codes are made of (TOTP, RFC 6238), sealed; bound to the user's id."""

    __tablename__ = "ops_second_factors"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("ops_users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[bytes | None]
    # Shown, and not confirmed by a code yet; since when, and to which session (its token's hash).
    offered: Mapped[bytes | None]
    offered_at: Mapped[datetime | None]
    offered_to: Mapped[bytes | None]
    confirmed_at: Mapped[datetime | None]
    # Of the newest code that was taken: neither it nor an earlier one is taken again (5.2).
    last_step: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    # Since the last right one: its user is told at the next sign-in.
    wrong_codes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")


class OpsRecoveryCode(Base):
    """The hash of a code that stands in for a lost second factor; gone once it was used."""

    __tablename__ = "ops_recovery_codes"

    code_hash: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[UUID] = mapped_column(ForeignKey("ops_users.id", ondelete="CASCADE"))


class OpsAttemptCount(Base):
    """How often a sign-in at the console was tried; see `shared/db/attempts.py`."""

    __tablename__ = "ops_attempt_counts"

    key: Mapped[bytes] = mapped_column(primary_key=True)  # a hash: of whom or where is not told
    count: Mapped[int] = mapped_column(Integer)
    ends_at: Mapped[datetime] = mapped_column(index=True)


class OpsTrouble(Base):
    """One trouble, from when it was first seen to when it was last; see ops' `episodes.py`."""

    __tablename__ = "ops_troubles"
    __table_args__ = (
        # Open once, however many consoles look.
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
    muted_until: Mapped[datetime | None]  # of what is muted; NULL: to its end
    # What was sent of it, by channel: what of it, when, and how much it was.
    told: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    figure: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    accepted_figure: Mapped[int | None] = mapped_column(BigInteger)


# --- shared.bus, on behalf of the service that calls it: inbox and outbox ------------------------


class InboxEntry(Base):
    """A message that a consumer has handled, so that a redelivery changes nothing."""

    __tablename__ = "inbox"
    __table_args__ = (
        # Of the derived ids (UUIDv5) alone: the others tell their age themselves. Each kind has an
        # index of its own, so that what is over is in front, and a run walks nothing else.
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
    # Of a command, whose id is its sender's: the SHA-256 of what it says and, behind it, that of
    # the person who says it, where one is named.
    digest: Mapped[bytes | None]


class OutboxMessage(Base):
    """A message that waits for the relay; what became of it so far is in its own row.

    Fresh: `next_try_at` is NULL. In doubt: it was sent and not confirmed, and is tried again from
    `next_try_at` on. Parked (`parked_at`): it could not be published, for the reason that is given;
    it is tried again too, or mended, or discarded by ops staff. While it is tried it has no reason.
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
        # What AMQP's short strings hold, in bytes: see shared/bus/contract/message.py.
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
    # Who has changed what it says since, set by a trigger: empty where nobody has.
    mended_by: Mapped[str] = mapped_column(server_default="")


class Rehearsal(Base):
    """What a message would do: ops staff ask, the service that would handle it answers.

    Unlogged, and gone when the answer is read or a minute later; see
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
"""All of a row of the audit log that is searched for words, as its index has it."""


class AuditEntry(Base):
    """What somebody did. Rows are added and never changed: a trigger refuses all else, to anybody.

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
    data: Mapped[str]  # the event's JSON, to the byte, since it is hashed
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())  # not hashed


# --- shared.telemetry.heartbeat, on behalf of every service: each writes its own rows ------------


class ServiceHeartbeat(Base):
    """A process that runs, and what it says of its queues; see `shared/telemetry/heartbeat.py`."""

    __tablename__ = "service_heartbeats"

    service: Mapped[str] = mapped_column(String(64), primary_key=True)
    instance: Mapped[str] = mapped_column(String(128), primary_key=True)  # host and process
    version: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    queues: Mapped[dict[str, Any]]
