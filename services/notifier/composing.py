"""From a fact to an email: who gets it, and its words.

The first line of a text template is the subject; the rest is the text. The HTML template says the
same. No template ever sees a secret: facts do not carry any.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from services.notifier.suppression import links
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    FINAL_STATUSES,
    AccountChanged,
    AccountOtpRequested,
    AccountSignedIn,
    Event,
    KycApproved,
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
from shared.security import tracking, webhook_keys
from shared.security.encryption import CannotOpenError, code_sealer
from shared.synthetic import TEST, is_synthetic

TEMPLATES: dict[type[Event], str] = {
    AccountOtpRequested: "one_time_code",
    AccountSignedIn: "signed_in",
    AccountChanged: "account_changed",
    KycSubmitted: "kyc_received",
    KycApproved: "kyc_approved",
    KycRejected: "kyc_rejected",
    KycRevoked: "kyc_revoked",
    SecretIssued: "secret_issued",
    SecretRotated: "secret_rotated",
    SecretShown: "secret_shown",
    SecretGiven: "secret_given",
    SecretKeyAdded: "secret_key_added",
    SecretKeyRemoved: "secret_key_removed",
    WebhookAllowlistChanged: "allowlist_changed",
    SecretExpiring: "secret_expiring",
    SecretRevoked: "secret_revoked",
    OrderRecorded: "order_received",
    OrderStatusRecorded: "order_status",
    OrderCancellationRecorded: "order_cancelled",
    OrderNotTaken: "not_taken",
    OrderTestRecorded: "order_received",
    OrderTestStatusRecorded: "order_status",
    OrderTestCancellationRecorded: "order_cancelled",
    OrderRecipientsRefused: "recipients_refused",
}

HIDDEN = "******"


@dataclass(frozen=True, slots=True)
class Email:
    """An email to be sent.

    Attributes:
        fact_id: the fact that it tells of.
        fact_type: its type.
        subject_id: the order or account that the story is about.
        template: which words; those of a test order begin with `TEST`.
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

    @property
    def is_counted(self) -> bool:
        """Whether it is counted among everybody's: neither a test nor the standing proof's."""
        return not (self.is_test or is_synthetic(self.recipient))


def compose(received: Received[Any], *, hides: bool = False) -> Email | None:
    """The email that a fact calls for; None when it calls for none.

    Args:
        received: the fact.
        hides: whether `HIDDEN` stands for what only its reader may have: codes, and in links what
            they open by.

    Raises:
        Permanent: a sealed code cannot be opened.
    """
    fact = received.data
    template = TEMPLATES.get(type(fact))
    if template is None:
        return None
    is_order = isinstance(fact, OrderRecorded | OrderStatusRecorded | OrderCancellationRecorded)
    known: dict[str, Any] = {"fact": fact, "public_url": settings().public_url}
    if is_order:
        known["tracking_link"] = _tracking_link(fact.order_id, hides=hides)
    if isinstance(fact, AccountSignedIn) and not fact.is_new_place:
        return None
    if isinstance(fact, AccountOtpRequested):
        if fact.expires_at <= datetime.now(UTC):
            return None
        code = _open_code(fact)
        known["code"] = HIDDEN if hides else code
    is_to_customer = is_order and not fact.IS_TEST
    unsubscribe_url = ""
    if is_to_customer:
        unsubscribe_url = links.unsubscribe_url(
            known["public_url"], fact.account_id, fact.order_id, fact.customer_email
        )
        if hides:
            unsubscribe_url = f"{unsubscribe_url.partition('=')[0]}={HIDDEN}"
    known["unsubscribe_url"] = unsubscribe_url
    text_template, html_template = _templates(template)
    subject, _, text = text_template.render(known).partition("\n")
    return Email(
        fact_id=received.id,
        fact_type=received.type,
        subject_id=received.correlation_id,
        template=f"{TEST}{template}" if fact.IS_TEST else template,
        recipient=fact.customer_email if is_order else fact.email,
        recipient_name=fact.customer_name if is_to_customer else fact.company_name,
        subject=f"TEST: {subject.strip()}" if fact.IS_TEST else subject.strip(),
        text=text.strip() + "\n",
        html=html_template.render(known),
        traceparent=received.traceparent,
        order_id=fact.order_id if is_order else None,
        account_id=fact.account_id if is_order else None,
        is_test=fact.IS_TEST,
        unsubscribe_url="" if isinstance(fact, OrderRecorded) else unsubscribe_url,
    )


def _tracking_link(order_id: UUID, *, hides: bool) -> str:
    """Where the customer sees the order; empty where there is no such page."""
    url = settings().tracking_url.rstrip("/")
    token = HIDDEN if hides else tracking.token_for(order_id)
    return f"{url}/{token}" if url else ""


def _open_code(fact: AccountOtpRequested) -> str:
    try:
        return code_sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()
    except CannotOpenError as error:
        raise Permanent(f"the one-time code cannot be opened: {error}") from None


def _moment(value: datetime) -> str:
    at = value.astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _day(value: date) -> str:
    return f"{value.day} {value:%B %Y}"


def _status(value: Any) -> str:
    return str(value).replace("_", " ").lower()


def _share(value: float) -> str:
    """A part of the whole, never rounded down to nothing."""
    return f"{value:.0%}" if value >= 0.01 else "Less than 1%"


def _platform(name: str) -> str:
    return webhook_keys.GIVEN_BY.get(name, name)


def _filters(environment: Environment) -> Environment:
    filters: dict[str, Callable[[Any], str | bool]] = {
        "moment": _moment,
        "day": _day,
        "status": _status,
        "share": _share,
        "platform": _platform,
        "is_final": FINAL_STATUSES.__contains__,
    }
    environment.filters.update(filters)
    return environment


@cache
def _environments() -> tuple[Environment, Environment]:
    loader = PackageLoader("services.notifier")
    common: dict[str, Any] = {
        "loader": loader,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
        # They came with the code, and asking the disk whether one changed is a cost an email.
        "auto_reload": False,
    }
    # Plain text must not be escaped: a customer called O'Neil is O'Neil.
    text = Environment(autoescape=False, **common)  # noqa: S701
    return _filters(text), _filters(Environment(autoescape=True, **common))


@cache
def _templates(name: str) -> tuple[Template, Template]:
    text, html = _environments()
    return text.get_template(f"{name}.txt"), html.get_template(f"{name}.html")
