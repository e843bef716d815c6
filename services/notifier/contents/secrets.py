"""What a business is told of its secrets, and of where its webhooks may come from."""

from services.notifier.contents.accounts import letter, not_you, reason
from services.notifier.contents.content import Block, Command, Content, Paragraph, Setting
from shared.bus.contract.events import (
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
from shared.security import webhook_keys


def issued(fact: SecretIssued, at: Setting) -> Content:
    """The first one is ready."""
    say = at.say
    return letter(
        at,
        fact.company_name,
        say("secrets.issued.subject", secret=_kind(at, fact.is_test)),
        Paragraph(say("secrets.fetch")),
        _fetch(at, fact.is_test),
        Paragraph(say("secrets.issued.until", until=at.moment(fact.expires_at))),
        Paragraph(say("secrets.never")),
    )


def rotated(fact: SecretRotated, at: Setting) -> Content:
    """There is a new one."""
    say, secret = at.say, _kind(at, fact.is_test)
    cause = fact.cause if fact.cause in ("expired_use", "scheduled") else "replaced"
    previous = at.moment(fact.previous_valid_until)
    return letter(
        at,
        fact.company_name,
        say("secrets.rotated.subject", secret=secret),
        Paragraph(say(f"secrets.rotated.{cause}", secret=secret, previous=previous)),
        Paragraph(say("secrets.rotated.fetch")),
        _fetch(at, fact.is_test),
        Paragraph(say("secrets.rotated.put", until=at.moment(fact.expires_at))),
        Paragraph(say("secrets.never")),
    )


def shown(fact: SecretShown, at: Setting) -> Content:
    """Somebody has looked at it."""
    say, secret = at.say, _kind(at, fact.is_test)
    news = say("secrets.shown.news", secret=secret, address=fact.address)
    subject = say("secrets.shown.subject", secret=secret)
    return letter(at, fact.company_name, subject, Paragraph(news), not_you(at))


def given(fact: SecretGiven, at: Setting) -> Content:
    """That of a platform was set."""
    say, platform = at.say, webhook_keys.GIVEN_BY.get(fact.platform, fact.platform)
    key = "secrets.given.news_shop" if fact.shop else "secrets.given.news"
    blocks: list[Block] = [
        Paragraph(say(key, platform=platform, shop=fact.shop, address=fact.address))
    ]
    if fact.revoked_ids:
        blocks.append(Paragraph(say("secrets.given.stopped")))
    elif fact.previous_valid_until:
        until = at.moment(fact.previous_valid_until)
        blocks.append(Paragraph(say("secrets.given.previous", previous=until)))
    blocks.append(
        Paragraph(
            say(
                "secrets.given.not_you",
                remove_url=at.page("/secret", f"/webhook/secret/{fact.platform}/"),
                reset_url=at.page("/password/lost", "/users/password/reset-code/"),
            )
        )
    )
    subject = say("secrets.given.subject", platform=platform)
    return letter(at, fact.company_name, subject, *blocks)


def expiring(fact: SecretExpiring, at: Setting) -> Content:
    """A replaced one ends soon."""
    say, secret = at.say, _kind(at, fact.is_test)
    last_used = at.moment(fact.last_used_at) if fact.last_used_at else ""
    subject = "subject"
    until = at.moment(fact.expires_at)
    blocks: list[Block] = [Paragraph(say("secrets.expiring.news", secret=secret, until=until))]
    if fact.share_of_last_day:
        subject = "subject_last" if fact.is_last else "subject_in_use"
        share = say.share(fact.share_of_last_day)
        blocks += [
            Paragraph(say("secrets.expiring.in_use", share=share, last_used=last_used)),
            Paragraph(say("secrets.expiring.fetch")),
            _fetch(at, fact.is_test),
            Paragraph(say("secrets.expiring.put")),
        ]
    else:
        used = "last_used" if last_used else "never_used"
        blocks += [
            Paragraph(say(f"secrets.expiring.{used}", last_used=last_used)),
            Paragraph(say("secrets.expiring.nothing_to_do")),
            _fetch(at, fact.is_test),
        ]
    return letter(at, fact.company_name, say(f"secrets.expiring.{subject}", secret=secret), *blocks)


def revoked(fact: SecretRevoked, at: Setting) -> Content:
    """It works no more."""
    number = "one" if len(fact.secret_ids) == 1 else "several"
    news = Paragraph(at.say(f"secrets.revoked.{number}"))
    subject = at.say("secrets.revoked.subject")
    return letter(at, fact.company_name, subject, news, *reason(at, fact.reason))


def key_added(fact: SecretKeyAdded, at: Setting) -> Content:
    """A public key is taken."""
    say, path = at.say, f"/webhook/public-keys/{fact.key_id}/"
    return letter(
        at,
        fact.company_name,
        say("secrets.key_added.subject"),
        Paragraph(say("secrets.key_added.news", address=fact.address)),
        Command((fact.public_key,)),
        Paragraph(say("secrets.key_added.next")),
        Command((f"DELETE {at.api(path)}",)),
    )


def key_removed(fact: SecretKeyRemoved, at: Setting) -> Content:
    """A public key is taken no more."""
    say = at.say
    return letter(
        at,
        fact.company_name,
        say("secrets.key_removed.subject"),
        Paragraph(say("secrets.key_removed.news", address=fact.address)),
        Command((fact.public_key,)),
        Paragraph(say("secrets.key_removed.next")),
    )


def allowlist_changed(fact: WebhookAllowlistChanged, at: Setting) -> Content:
    """From where webhooks may come is another place now."""
    say = at.say
    networks = ", ".join(fact.allowed_networks)
    key = "secrets.allowlist.networks" if networks else "secrets.allowlist.anywhere"
    return letter(
        at,
        fact.company_name,
        say("secrets.allowlist.subject"),
        Paragraph(say("secrets.allowlist.news", address=fact.address)),
        Paragraph(say(key, networks=networks)),
        not_you(at),
    )


def _kind(at: Setting, is_test: bool) -> str:
    return at.say("secrets.kind.test" if is_test else "secrets.kind.live")


def _fetch(at: Setting, is_test: bool) -> Command:
    path = "/webhook/test-secret/" if is_test else "/webhook/secret/"
    return Command((f"GET {at.api(path)}",))
