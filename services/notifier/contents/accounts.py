"""What a business is told of its account and of its KYC application."""

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


def letter(fact: AccountFact, at: Setting, subject: str, *blocks: Block) -> Content:
    """An email to a business. Its first paragraph is its preheader, too."""
    return Content(
        subject=subject,
        preheader=next((block.text for block in blocks if isinstance(block, Paragraph)), ""),
        heading=subject,
        blocks=blocks,
        footer=(at.say("accounts.because", company=fact.company_name),),
        sender=NAME,
    )


def one_time_code(fact: AccountOtpRequested, at: Setting) -> Content:
    """A code. Nothing of who asked for it is in it: the address is not proved."""
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


def not_you(at: Setting) -> Paragraph:
    """What to do about a sign-in that was somebody else's."""
    return at.paragraph(
        "accounts.not_you_password",
        reset_url=at.page("/password/lost", "/users/password/reset-code/"),
        sessions_url=at.page("/account", "/users/sessions/"),
    )


def signed_in(fact: AccountSignedIn, at: Setting) -> Content:
    """Somebody signed in from somewhere new."""
    news = at.paragraph("accounts.signed_in.news", address=fact.address)
    return letter(fact, at, at.say("accounts.signed_in.subject"), news, not_you(at))


def account_changed(fact: AccountChanged, at: Setting) -> Content:
    """What its owner must know."""
    say = at.say
    value = say("accounts.changed.ours") if fact.value == "ours" else fact.value
    blocks: list[Block] = [
        at.paragraph(f"accounts.changed.{fact.what}", address=fact.address, value=value),
        *reason(at, fact.reason),
        at.paragraph("accounts.changed.know_nothing"),
    ]
    return letter(fact, at, say("accounts.changed.subject"), *blocks)


def reason(at: Setting, given: str) -> list[Block]:
    """Why, in the words of whoever did it; nothing where they gave none."""
    return [at.paragraph("accounts.reason"), Quote(given)] if given else []


def kyc_received(fact: KycSubmitted, at: Setting) -> Content:
    """An application has come."""
    number = fact.business_registration_number
    news = at.paragraph("kyc.received.news", company=fact.company_name, number=number)
    subject = at.say("kyc.received.subject")
    return letter(fact, at, subject, news, at.paragraph("kyc.received.next"))


def kyc_approved(fact: KycApproved, at: Setting) -> Content:
    """It is approved."""
    news = at.paragraph("kyc.approved.news", company=fact.company_name)
    return letter(fact, at, at.say("kyc.approved.subject"), news)


def kyc_rejected(fact: KycRejected, at: Setting) -> Content:
    """The application is rejected."""
    return _decided("kyc.rejected", fact, at, Quote(fact.reason))


def kyc_asked(fact: KycInformationRequested, at: Setting) -> Content:
    """More information is needed."""
    return _decided("kyc.asked", fact, at, Quote(fact.reason))


def kyc_revoked(fact: KycRevoked, at: Setting) -> Content:
    """The approval is taken back."""
    return _decided("kyc.revoked", fact, at, *reason(at, fact.reason))


def _decided(key: str, fact: AccountFact, at: Setting, *why: Block) -> Content:
    news = at.paragraph(f"{key}.news", company=fact.company_name)
    return letter(fact, at, at.say(f"{key}.subject"), news, *why, at.paragraph(f"{key}.next"))
