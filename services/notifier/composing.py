"""From a fact to an email: who gets it, and its words in the language of its account.

No content ever sees a secret: facts do not carry any.
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
"""By the fact: the email's name, in the books and in metrics, and what it says."""

_OF_ORDERS = (OrderRecorded, OrderStatusRecorded, OrderCancellationRecorded)
HIDDEN = "******"


class Email(msgspec.Struct, frozen=True):
    """An email to be sent. A Struct, which is made in a fifth of the time of a dataclass.

    Attributes:
        fact_id: the fact that it tells of.
        fact_type: its type.
        subject_id: the order or account that the story is about.
        template: which of `CONTENTS`; those of a test order begin with `TEST`.
        recipient: the address.
        recipient_name: how the recipient is called.
        subject: the subject line.
        text: the text part.
        html: the HTML part.
        traceparent: the trace of the fact, where there is one.
        order_id: the order that it tells its customer of; None for an email to a business.
        account_id: whose order that is.
        is_test: whether it is a test order; then the recipient is the business itself.
        unsubscribe_url: where its reader leaves, for a mail program to offer; empty for an email
            that goes to who has left, too.
        sender: how the business is named in it, and where answers go.
        kind: of an email to a business, by which those of a day are counted; empty for a code,
            of which so many are made and no more.
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
        """Whether it is counted among everybody's: neither a test nor the standing proof's."""
        return not (self.is_test or is_synthetic(self.recipient))


def account_of(received: Received[Any]) -> UUID | None:
    """Whose language an email about a fact is in; None where it calls for none."""
    fact = received.data
    return fact.account_id if type(fact) in CONTENTS else None


def overdue(session: Session, messages: Sequence[Received[Any]]) -> set[UUID]:
    """Those of these facts that tell a code which is over: nobody is told of what opens nothing.

    By the database's clock, which gave it its end.
    """
    ends = {m.id: m.data.expires_at for m in messages if isinstance(m.data, AccountOtpRequested)}
    now = database_time(session) if ends else None
    return {id_ for id_, end in ends.items() if now is not None and end <= now}


def compose(received: Received[Any], chosen: Sender = OURS, *, hides: bool = False) -> Email | None:
    """The email that a fact calls for; None when it calls for none.

    Args:
        received: the fact.
        chosen: what the account that it is about has chosen for its emails.
        hides: whether `HIDDEN` stands for what only its reader may have: codes, and in links what
            they open by.

    Raises:
        Permanent: a sealed code cannot be opened.
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
    """Where the customer sees the order; empty where there is no such page."""
    page = tracking.page(fact.order_id, fact.tracking_link or 0)
    return f"{page.rpartition('/')[0]}/{HIDDEN}" if hides and page else page


def _open_code(fact: AccountOtpRequested) -> str:
    try:
        return code_sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()
    except CannotOpenError as error:
        raise Permanent(f"the one-time code cannot be opened: {error}") from None
