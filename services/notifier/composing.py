"""Composes the email of a fact, in its account's language.

Facts contain no secrets, so no email does.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.notifier.contents import (
    accounts,
    deliveries,
    orders,
    prepared,
    rendering,
    secrets,
)
from services.notifier.contents.content import Content, Setting, portal_of
from services.notifier.senders import OURS, Sender
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    AccountChanged,
    AccountOtpRequested,
    AccountSignedIn,
    Event,
    KycApproved,
    KycInformationRequested,
    KycRejected,
    KycRevoked,
    KycSubmitted,
    OrderCancellationRecorded,
    OrderNotTaken,
    OrderRecipientsRefused,
    OrderRecorded,
    OrderStatusRecorded,
    OrderTestCancellationRecorded,
    OrderTestRecorded,
    OrderTestStatusRecorded,
    SecretExpiring,
    SecretGiven,
    SecretIssued,
    SecretKeyAdded,
    SecretKeyRemoved,
    SecretRevoked,
    SecretRotated,
    SecretShown,
    WebhookAllowlistChanged,
)
from shared.bus.contract.message import Received
from shared.config.loading import settings
from shared.db.session import database_time
from shared.languages import time_zones
from shared.languages.language import language
from shared.security import tracking, unsubscribe_tokens
from shared.security.encryption import CannotOpenError, code_sealer
from shared.synthetic import TEST, is_synthetic

CONTENTS: dict[type[Event], tuple[str, Callable[[Any, Setting], Content]]] = {
    AccountOtpRequested: ("one_time_code", accounts.one_time_code),
    AccountSignedIn: ("signed_in", accounts.signed_in),
    AccountChanged: ("account_changed", accounts.account_changed),
    KycSubmitted: ("kyc_received", accounts.kyc_received),
    KycApproved: ("kyc_approved", accounts.kyc_approved),
    KycRejected: ("kyc_rejected", accounts.kyc_rejected),
    KycInformationRequested: ("kyc_asked", accounts.kyc_asked),
    KycRevoked: ("kyc_revoked", accounts.kyc_revoked),
    SecretIssued: ("secret_issued", secrets.issued),
    SecretRotated: ("secret_rotated", secrets.rotated),
    SecretShown: ("secret_shown", secrets.shown),
    SecretGiven: ("secret_given", secrets.given),
    SecretKeyAdded: ("secret_key_added", secrets.key_added),
    SecretKeyRemoved: ("secret_key_removed", secrets.key_removed),
    WebhookAllowlistChanged: ("allowlist_changed", secrets.allowlist_changed),
    SecretExpiring: ("secret_expiring", secrets.expiring),
    SecretRevoked: ("secret_revoked", secrets.revoked),
    OrderRecorded: ("order_received", orders.received),
    OrderStatusRecorded: ("order_status", orders.status),
    OrderCancellationRecorded: ("order_cancelled", orders.cancelled),
    OrderNotTaken: ("not_taken", deliveries.not_taken),
    OrderTestRecorded: ("order_received", orders.received),
    OrderTestStatusRecorded: ("order_status", orders.status),
    OrderTestCancellationRecorded: ("order_cancelled", orders.cancelled),
    OrderRecipientsRefused: ("recipients_refused", deliveries.recipients_refused),
}
"""By the fact's type: the template's name in the database and in metrics, and its content."""

_OF_ORDERS = (OrderRecorded, OrderStatusRecorded, OrderCancellationRecorded)
HIDDEN = "******"


class Email(msgspec.Struct, frozen=True):
    """An email to be sent. A Struct, which is created five times as fast as a dataclass.

    Attributes:
        fact_id: the message id of its fact.
        fact_type: the fact's type.
        subject_id: the fact's correlation id, of an order or account.
        template: the name in `CONTENTS`, with the prefix `TEST` for a test order.
        recipient: the address.
        recipient_name: the recipient's name.
        subject: the subject line.
        text: the text part.
        html: the HTML part.
        traceparent: the fact's trace, if it has one.
        order_id: the order of an email to a customer; None for an email to a business.
        account_id: the order's account.
        is_test: whether it is about a test order; then the recipient is the business.
        unsubscribe_url: for the List-Unsubscribe header; empty for emails that are sent to
            unsubscribed customers as well.
        sender: the business's settings for the From and Reply-To headers.
        kind: the kind by which emails to a business are limited; empty for a code, which is limited
            where it is created.
    """

    fact_id: UUID
    fact_type: str
    subject_id: str
    template: str
    recipient: str
    recipient_name: str
    subject: str
    text: str
    html: str
    traceparent: str | None = None
    order_id: UUID | None = None
    account_id: UUID | None = None
    is_test: bool = False
    unsubscribe_url: str = ""
    sender: Sender = OURS
    kind: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether it counts in metrics: it is neither a test nor the standing proof's."""
        return not (self.is_test or is_synthetic(self.recipient))


def account_of(received: Received[Any]) -> UUID | None:
    """Return the account whose settings a fact's email uses; None for a fact without an email."""
    fact = received.data
    return fact.account_id if type(fact) in CONTENTS else None


def overdue(session: Session, messages: Sequence[Received[Any]]) -> set[UUID]:
    """Return the facts whose one-time code has expired, by the database's clock."""
    ends = {m.id: m.data.expires_at for m in messages if isinstance(m.data, AccountOtpRequested)}
    now = database_time(session) if ends else None
    return {id_ for id_, end in ends.items() if now is not None and end <= now}


def compose(received: Received[Any], chosen: Sender = OURS, *, hides: bool = False) -> Email | None:
    """Return the email of a fact; None for a fact without one.

    Args:
        received: the fact.
        chosen: the account's settings for its emails.
        hides: whether to replace codes and the tokens of links by `HIDDEN`.

    Raises:
        Permanent: the sealed code cannot be opened.
    """
    fact = received.data
    if type(fact) not in CONTENTS:
        return None
    template, content_of = CONTENTS[type(fact)]
    is_order = isinstance(fact, _OF_ORDERS)
    if isinstance(fact, AccountSignedIn) and not fact.is_new_place:
        return None
    code = ""
    if isinstance(fact, AccountOtpRequested):
        code = _open_code(fact)
        code = HIDDEN if hides else code
    public_url = settings().public_url
    is_to_customer = is_order and not fact.IS_TEST
    unsubscribe_url = ""
    if is_to_customer:
        unsubscribe_url = unsubscribe_tokens.unsubscribe_url(
            public_url, fact.account_id, fact.order_id, fact.customer_email
        )
        if hides:
            unsubscribe_url = f"{unsubscribe_url.partition('=')[0]}={HIDDEN}"
    say = language(chosen.language)
    if is_order:
        fact = orders.in_language(fact, say)
    setting = Setting(
        say=say,
        zone=time_zones.zone(chosen.time_zone),
        public_url=public_url,
        reply_to=chosen.reply_to,
        code=code,
        tracking_page=_tracking_link(fact, hides=hides) if is_order else "",
        unsubscribe_url=unsubscribe_url,
        excerpt=orders.excerpt(fact) if is_order else "",
        portal_url=portal_of(settings().tracking_url),
    )
    make = prepared.parts if is_order else rendering.parts
    parts = make(fact, content_of, setting)
    subject = " ".join(parts.subject.split())
    return Email(
        fact_id=received.id,
        fact_type=received.type,
        subject_id=received.correlation_id,
        template=f"{TEST}{template}" if fact.IS_TEST else template,
        recipient=fact.customer_email if is_order else fact.email,
        recipient_name=fact.customer_name if is_to_customer else fact.company_name,
        subject=f"TEST: {subject}" if fact.IS_TEST else subject,
        text=parts.text,
        html=parts.html,
        traceparent=received.traceparent,
        order_id=fact.order_id if is_order else None,
        account_id=fact.account_id if is_order else None,
        is_test=fact.IS_TEST,
        unsubscribe_url="" if isinstance(fact, OrderRecorded) else unsubscribe_url,
        sender=chosen if is_order else OURS,
        kind="" if is_order or code else f"{template} {getattr(fact, 'what', '')}".rstrip(),
    )


def _tracking_link(fact: Any, *, hides: bool) -> str:
    """Return the URL of the order's page; empty if there is none."""
    page = tracking.page(fact.order_id, fact.tracking_link or 0)
    return f"{page.rpartition('/')[0]}/{HIDDEN}" if hides and page else page


def _open_code(fact: AccountOtpRequested) -> str:
    try:
        return code_sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()
    except CannotOpenError as error:
        raise Permanent(f"the one-time code cannot be opened: {error}") from None
