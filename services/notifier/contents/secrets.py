"""Emails to a business about its secrets, its public keys and its allowlist."""

from services.notifier.contents.accounts import letter, not_you, reason
from services.notifier.contents.content import Block, Command, Content, Setting
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

_PAGE = "/secret"


def issued(fact: SecretIssued, at: Setting) -> Content:
    """Return the email about the first secret."""
    return letter(
        fact,
        at,
        at.say("secrets.issued.subject", secret=_kind(at, fact.is_test)),
        at.paragraph("secrets.fetch"),
        *_fetch(at, fact.is_test),
        at.paragraph("secrets.issued.until", until=at.moment(fact.expires_at)),
        at.paragraph("secrets.never"),
    )


def rotated(fact: SecretRotated, at: Setting) -> Content:
    """Return the email about a replaced secret."""
    say, secret = at.say, _kind(at, fact.is_test)
    cause = fact.cause if fact.cause in ("expired_use", "scheduled") else "replaced"
    previous = at.moment(fact.previous_valid_until)
    return letter(
        fact,
        at,
        say("secrets.rotated.subject", secret=secret),
        at.paragraph(f"secrets.rotated.{cause}", secret=secret, previous=previous),
        at.paragraph("secrets.rotated.fetch"),
        *_fetch(at, fact.is_test),
        at.paragraph("secrets.rotated.until", until=at.moment(fact.expires_at)),
        at.paragraph("secrets.never"),
    )


def shown(fact: SecretShown, at: Setting) -> Content:
    """Return the email about a secret that was displayed to a signed-in user."""
    secret = _kind(at, fact.is_test)
    news = at.paragraph("secrets.shown.news", secret=secret, address=fact.address)
    return letter(fact, at, at.say("secrets.shown.subject", secret=secret), news, *not_you(at))


def given(fact: SecretGiven, at: Setting) -> Content:
    """Return the email about a platform's secret that was set."""
    say, platform = at.say, _platform(fact.platform)
    key = "secrets.given.news_shop" if fact.shop else "secrets.given.news"
    news = at.paragraph(key, platform=platform, shop=fact.shop, address=fact.address)
    blocks: list[Block] = [news]
    if fact.revoked_ids:
        blocks.append(at.paragraph("secrets.given.stopped"))
    elif fact.previous_valid_until:
        until = at.moment(fact.previous_valid_until)
        blocks.append(at.paragraph("secrets.given.previous", previous=until))
    if at.portal_url:
        blocks += [
            at.paragraph("secrets.given.not_you_open"),
            *at.way("secrets.open", _PAGE),
            *at.way("accounts.set_password", "/password/lost", is_first=False),
        ]
    else:
        remove_url = at.api(f"/webhook/secret/{fact.platform}/")
        reset_url = at.api("/users/password/reset-code/")
        blocks.append(
            at.paragraph("secrets.given.not_you", remove_url=remove_url, reset_url=reset_url)
        )
    subject = say("secrets.given.subject", platform=platform)
    return letter(fact, at, subject, *blocks)


def expiring(fact: SecretExpiring, at: Setting) -> Content:
    """Return the email about a replaced secret that is about to expire."""
    say, secret = at.say, _kind(at, fact.is_test)
    last_used = at.moment(fact.last_used_at) if fact.last_used_at else ""
    subject = "subject"
    until = at.moment(fact.expires_at)
    blocks: list[Block] = [at.paragraph("secrets.expiring.news", secret=secret, until=until)]
    if fact.share_of_last_day:
        subject = "subject_last" if fact.is_last else "subject_in_use"
        share = say.share(fact.share_of_last_day)
        blocks += [
            at.paragraph("secrets.expiring.in_use", share=share, last_used=last_used),
            at.paragraph("secrets.expiring.fetch"),
            *_fetch(at, fact.is_test),
        ]
    else:
        used = "last_used" if last_used else "never_used"
        blocks += [
            at.paragraph(f"secrets.expiring.{used}", last_used=last_used),
            at.paragraph("secrets.expiring.nothing_to_do"),
            *_fetch(at, fact.is_test),
        ]
    return letter(fact, at, say(f"secrets.expiring.{subject}", secret=secret), *blocks)


def revoked(fact: SecretRevoked, at: Setting) -> Content:
    """Return the email about revoked secrets and public keys."""
    # Without kinds the fact is an earlier version's.
    kind = "mixed" if len(fact.kinds) > 1 else "".join(fact.kinds) or "live"
    key, platform = kind, ""
    if kind not in ("live", "test", "key", "mixed"):
        key, platform = "given", _platform(kind)
    number = "one" if len(fact.secret_ids) == 1 else "several"
    news = at.paragraph(f"secrets.revoked.{key}.{number}", platform=platform)
    if fact.cause:
        why: list[Block] = [at.paragraph(f"secrets.revoked.cause.{fact.cause}")]
    else:
        why = reason(at, fact.reason)
    then = [] if fact.cause == "account_closed" else at.way("secrets.open", _PAGE)
    subject = at.say(f"secrets.revoked.{key}.subject", platform=platform)
    return letter(fact, at, subject, news, *why, *then)


def key_added(fact: SecretKeyAdded, at: Setting) -> Content:
    """Return the email about an added public key."""
    request = f"DELETE /webhook/public-keys/{fact.key_id}/"
    return _key("secrets.key_added", fact, at, *at.way("secrets.key_added.open", _PAGE, request))


def key_removed(fact: SecretKeyRemoved, at: Setting) -> Content:
    """Return the email about a removed public key."""
    return _key("secrets.key_removed", fact, at, *at.way("accounts.set_password", "/password/lost"))


def allowlist_changed(fact: WebhookAllowlistChanged, at: Setting) -> Content:
    """Return the email about changed networks from which webhooks are accepted."""
    say = at.say
    networks = ", ".join(fact.allowed_networks)
    key = "secrets.allowlist.networks" if networks else "secrets.allowlist.anywhere"
    return letter(
        fact,
        at,
        say("secrets.allowlist.subject"),
        at.paragraph("secrets.allowlist.news", address=fact.address),
        at.paragraph(key, networks=networks),
        *not_you(at),
    )


def _key(key: str, fact: SecretKeyAdded | SecretKeyRemoved, at: Setting, *how: Block) -> Content:
    return letter(
        fact,
        at,
        at.say(f"{key}.subject"),
        at.paragraph(f"{key}.news", address=fact.address),
        Command((fact.public_key,)),
        at.paragraph(f"{key}.next"),
        *how,
    )


def _platform(name: str) -> str:
    return webhook_keys.GIVEN_BY.get(name, name)


def _kind(at: Setting, is_test: bool) -> str:
    return at.say("secrets.kind.test" if is_test else "secrets.kind.live")


def _fetch(at: Setting, is_test: bool) -> list[Block]:
    kind = "test-secret" if is_test else "secret"
    return at.way("secrets.open", _PAGE, f"GET /webhook/{kind}/")
