"""What a business is told of its account and of its KYC application."""

from services.notifier.contents.content import Block, Code, Content, Paragraph, Quote, Setting
from shared.bus.contract.events import (
    AccountChanged,
    AccountOtpRequested,
    AccountSignedIn,
    KycApproved,
    KycInformationRequested,
    KycRejected,
    KycRevoked,
    KycSubmitted,
)
from shared.product import NAME


def letter(
    at: Setting, company: str, subject: str, *blocks: Block, heading: str = "", preheader: str = ""
) -> Content:
    """An email to a business.

    Args:
        at: the setting.
        company: the business's name.
        subject: the subject line.
        blocks: what it says.
        heading: the subject's short form; without it the subject itself.
        preheader: without it the first sentence.
    """
    first = next((block.text for block in blocks if isinstance(block, Paragraph)), "")
    return Content(
        subject=subject,
        preheader=preheader or first,
        heading=heading or subject,
        blocks=blocks,
        footer=(at.say("accounts.because", company=company),),
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
            Paragraph(say(f"accounts.code.{purpose}", until=at.moment(fact.expires_at))),
            Paragraph(say("accounts.code.ignore")),
        ),
        footer=(say("accounts.code.because"),),
        sender=NAME,
    )


def not_you(at: Setting) -> Paragraph:
    """What to do about a sign-in that was somebody else's."""
    return Paragraph(
        at.say(
            "accounts.not_you_password",
            reset_url=at.page("/password/lost", "/users/password/reset-code/"),
            sessions_url=at.page("/account", "/users/sessions/"),
        )
    )


def signed_in(fact: AccountSignedIn, at: Setting) -> Content:
    """Somebody signed in from somewhere new."""
    news = Paragraph(at.say("accounts.signed_in.news", address=fact.address))
    subject = at.say("accounts.signed_in.subject")
    return letter(at, fact.company_name, subject, news, not_you(at))


def account_changed(fact: AccountChanged, at: Setting) -> Content:
    """What its owner must know."""
    say = at.say
    value = say("accounts.changed.ours") if fact.value == "ours" else fact.value
    blocks: list[Block] = [
        Paragraph(say(f"accounts.changed.{fact.what}", address=fact.address, value=value)),
        *reason(at, fact.reason),
        Paragraph(say("accounts.changed.know_nothing")),
    ]
    return letter(at, fact.company_name, say("accounts.changed.subject"), *blocks)


def reason(at: Setting, given: str) -> list[Block]:
    """Why, in the words of whoever did it; nothing where they gave none."""
    return [Paragraph(at.say("accounts.reason")), Quote(given)] if given else []


def kyc_received(fact: KycSubmitted, at: Setting) -> Content:
    """An application has come."""
    say = at.say
    number = fact.business_registration_number
    news = say("kyc.received.news", company=fact.company_name, number=number)
    subject = say("kyc.received.subject")
    return letter(
        at, fact.company_name, subject, Paragraph(news), Paragraph(say("kyc.received.next"))
    )


def kyc_approved(fact: KycApproved, at: Setting) -> Content:
    """It is approved."""
    news = at.say("kyc.approved.news", company=fact.company_name)
    return letter(at, fact.company_name, at.say("kyc.approved.subject"), Paragraph(news))


def kyc_rejected(fact: KycRejected, at: Setting) -> Content:
    """It is not."""
    say = at.say
    return letter(
        at,
        fact.company_name,
        say("kyc.rejected.subject"),
        Paragraph(say("kyc.rejected.news", company=fact.company_name)),
        Quote(fact.reason),
        Paragraph(say("kyc.rejected.next")),
    )


def kyc_asked(fact: KycInformationRequested, at: Setting) -> Content:
    """More information is needed."""
    say = at.say
    return letter(
        at,
        fact.company_name,
        say("kyc.asked.subject"),
        Paragraph(say("kyc.asked.news", company=fact.company_name)),
        Quote(fact.reason),
        Paragraph(say("kyc.asked.next")),
    )


def kyc_revoked(fact: KycRevoked, at: Setting) -> Content:
    """It is no longer."""
    say = at.say
    return letter(
        at,
        fact.company_name,
        say("kyc.revoked.subject"),
        Paragraph(say("kyc.revoked.news", company=fact.company_name)),
        *reason(at, fact.reason),
        Paragraph(say("kyc.revoked.next")),
    )
