"""Emails to a business about its account and its KYC application."""

from services.notifier.contents.content import Block, Code, Content, Paragraph, Quote, Setting
from shared.bus.contract.events import (
    AccountChanged,
    AccountFact,
    AccountOtpRequested,
    AccountSignedIn,
    KycApproved,
    KycInformationRequested,
    KycRejected,
    KycRevoked,
    KycSubmitted,
)
from shared.product import NAME

_BY_OPERATORS = ("blocked", "unblocked")
_BY_PASSWORD = ("password_changed", "password_reset", "refresh_token_reused")
"""Changes after which the owner can still set a new password by a code."""


def letter(fact: AccountFact, at: Setting, subject: str, *blocks: Block) -> Content:
    """Return an email to a business. Its first paragraph is also its preheader."""
    return Content(
        subject=subject,
        preheader=next((block.text for block in blocks if isinstance(block, Paragraph)), ""),
        heading=subject,
        blocks=blocks,
        footer=(at.say("accounts.because", company=fact.company_name),),
        sender=NAME,
    )


def one_time_code(fact: AccountOtpRequested, at: Setting) -> Content:
    """Return the email with a code. It names no business, since the address is not proved."""
    say = at.say
    purpose = "password_reset" if fact.purpose == "password_reset" else "registration"
    return Content(
        subject=say("accounts.code.subject"),
        preheader=say("accounts.code.preheader"),
        heading=say("accounts.code.heading"),
        blocks=(
            Code(at.code, say("accounts.code.is", code=at.code)),
            at.paragraph(f"accounts.code.{purpose}", until=at.moment(fact.expires_at)),
            at.paragraph("accounts.code.ignore"),
        ),
        footer=(say("accounts.code.because"),),
        sender=NAME,
    )


def not_you(at: Setting) -> list[Block]:
    """Return what to do about a sign-in or a change by another person."""
    if at.portal_url:
        return [
            at.paragraph("accounts.not_you_open"),
            *at.way("accounts.set_password", "/password/lost"),
            *at.way("accounts.end_sessions", "/account", is_first=False),
        ]
    return [
        at.paragraph(
            "accounts.not_you_password",
            reset_url=at.api("/users/password/reset-code/"),
            sessions_url=at.api("/users/sessions/"),
        )
    ]


def signed_in(fact: AccountSignedIn, at: Setting) -> Content:
    """Return the email about a sign-in from a new place."""
    news = at.paragraph("accounts.signed_in.news", address=fact.address)
    return letter(fact, at, at.say("accounts.signed_in.subject"), news, *not_you(at))


def account_changed(fact: AccountChanged, at: Setting) -> Content:
    """Return the email about a change that the owner must know of."""
    say = at.say
    value = say("accounts.changed.ours") if fact.value == "ours" else fact.value
    blocks: list[Block] = [
        at.paragraph(f"accounts.changed.{fact.what}", address=fact.address, value=value),
        *reason(at, fact.reason),
    ]
    if fact.what not in _BY_OPERATORS:
        blocks.append(at.paragraph("accounts.changed.know_nothing"))
    if fact.what in _BY_PASSWORD:
        # Who had the password may have read the secrets, which no new password ends.
        blocks.append(at.paragraph("accounts.changed.keys_stay"))
        blocks += at.way("accounts.set_password", "/password/lost")
        blocks += at.way("secrets.open", "/secret", "POST /webhook/secret/", is_first=False)
    return letter(fact, at, say("accounts.changed.subject"), *blocks)


def reason(at: Setting, text: str) -> list[Block]:
    """Return a reason as a quote; nothing for an empty one."""
    return [at.paragraph("accounts.reason"), Quote(text)] if text else []


def kyc_received(fact: KycSubmitted, at: Setting) -> Content:
    """Return the email about a received application."""
    number = fact.business_registration_number
    news = at.paragraph("kyc.received.news", company=fact.company_name, number=number)
    subject = at.say("kyc.received.subject")
    return letter(fact, at, subject, news, at.paragraph("kyc.received.next"))


def kyc_approved(fact: KycApproved, at: Setting) -> Content:
    """Return the email about an approval."""
    news = at.paragraph("kyc.approved.news", company=fact.company_name)
    return letter(fact, at, at.say("kyc.approved.subject"), news, *at.way("kyc.approved.open", "/"))


def kyc_rejected(fact: KycRejected, at: Setting) -> Content:
    """Return the email about a rejected application."""
    return _decided("kyc.rejected", fact, at, Quote(fact.reason))


def kyc_asked(fact: KycInformationRequested, at: Setting) -> Content:
    """Return the email that asks for more information."""
    return _decided("kyc.asked", fact, at, Quote(fact.reason))


def kyc_revoked(fact: KycRevoked, at: Setting) -> Content:
    """Return the email about a revoked approval."""
    return _decided("kyc.revoked", fact, at, *reason(at, fact.reason))


def _decided(key: str, fact: AccountFact, at: Setting, *why: Block) -> Content:
    news = at.paragraph(f"{key}.news", company=fact.company_name)
    then = (at.paragraph(f"{key}.next"), *at.way("kyc.open", "/kyc"))
    return letter(fact, at, at.say(f"{key}.subject"), news, *why, *then)
