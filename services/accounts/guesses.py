"""Rate limits on guesses at passwords and codes, and on emails that anybody can request.

Guesses at an account are counted apart for the networks that it was used from, for the devices that
signed in to it, and for all strangers together: a flood from elsewhere uses up the strangers' share
and does not hold up the owner in a known place. In total, fewer than 100 passwords and 100 codes
are checked for one account (NIST SP 800-63B, 5.2.2; OWASP ASVS 2.2.1) in an hour that begins with
the first; across two such hours it may be twice as many. A code has five tries for all strangers
together, and five for each party with a claim to it; a new code does not begin a new count. An
account that does not exist counts like one that does.
"""

from datetime import timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.config.loading import settings
from shared.db.attempts import DAY, HOUR, MINUTE, Attempts, Limit
from shared.db.models import Account, AttemptCount, KnownNetwork
from shared.ids import new_id
from shared.security import device_tokens
from shared.security.encryption import code_sealer
from shared.validation.email_addresses import compared, mailbox

Kind = Literal["password", "code"]

attempts = Attempts(AttemptCount, code_sealer)

STRANGERS_AN_HOUR = {"password": 45, "code": 20}
"""For all networks together that the account was not used from."""
OWN_AN_HOUR = {"password": 20, "code": 9}
"""For each network that it was used from. For codes, also for each that requested one, of which
there are `MAILS_A_DAY` at most."""
NETWORKS_PASSWORDS_AN_HOUR = 25
"""For all known networks of an account together; devices and sessions have a separate limit."""
TRIES = 5
"""For one code: of all strangers together, and of each party with a claim to it."""
MAILS_A_DAY = 8
"""Emails to one address that strangers can request; as many again from the networks where its
account is used, and by its devices."""
MARKED_MAILS_A_DAY = 3 * MAILS_A_DAY
"""The same for one mailbox under all its addresses with a `+` tag. These do not count against the
address without a tag, whose owner may never have used one. One network may use a third."""
MAILED_BEFORE = (MAILS_A_DAY, 6, 5, 4)
"""How many emails of the day an address may have had before a network's first, second, … request:
one network cannot use up all, and the last ones are for networks that ask for the first time."""
MAILS_MINUTES = 4
"""One network can request as many emails in an hour, at accounts that were not used from it, as it
has sign-in attempts in so many minutes. With more it could lock out its other users."""
A_DEVICE = "a device"
"""In place of a network: devices known by their token count together, apart from networks, which
strangers may share."""
_NETWORKS = "networks"
"""In place of a network: all networks that the account was used from."""
FAILURES_AN_HOUR = 100
"""Failed sign-ins in the audit log, at all addresses without an account together: the log is never
pruned. At an account it is one a minute."""
SIGN_INS = (2, 60)
"""Sign-ins of an account in the audit log, in a minute and in an hour: a correct password may be
given without limit. One from a new network is recorded beside them, up to 60 an hour."""
NEW_ADDRESSES_A_DAY = 8
"""Codes that one account can have mailed to new addresses, which may be strangers'."""


class Asked(NamedTuple):
    """The outcome of a request for an email. If neither attribute is set, send it.

    Attributes:
        wait: seconds until one may be sent; 0 if one may be sent now.
        is_on_its_way: whether the same was requested less than a minute ago.
    """

    wait: int = 0
    is_on_its_way: bool = False


def at(
    session: Session, kind: Kind, email: str, network: str, *, is_known: bool = False
) -> tuple[Limit, ...]:
    """Return the limits of a guess.

    Args:
        session: the transaction.
        kind: what is guessed.
        email: the account's address.
        network: the client's network.
        is_known: whether it comes from a known device or a session of the account.
    """
    config, email = settings(), email.lower()
    if not is_known and not is_own(session, kind, email, network):
        return (
            Limit(f"{kind} of", email, config.account_attempts_per_minute, MINUTE),
            Limit(f"{kind} of", email, STRANGERS_AN_HOUR[kind], HOUR),
            Limit(f"{kind} from", network, config.sign_in_attempts_per_minute, MINUTE),
        )
    place = A_DEVICE if is_known else network
    own = Limit(f"own {kind}", f"{email}\0{place}", OWN_AN_HOUR[kind], HOUR)
    if kind == "code" or is_known:
        return (own,)
    together = Limit(f"own {kind}", f"{email}\0{_NETWORKS}", NETWORKS_PASSWORDS_AN_HOUR, HOUR)
    return own, together


def mails(
    session: Session, email: str, network: str, *, is_known: bool = False
) -> tuple[Limit, ...]:
    """Return the limits of an email that anybody can request; arguments as for `at`."""
    email = email.lower()
    if is_known or is_own(session, "password", email, network):
        place = A_DEVICE if is_known else _NETWORKS
        return (Limit("own mail", f"{email}\0{place}", MAILS_A_DAY, DAY),)
    asked, box = _asked(email, network), mailbox(email)
    before = MAILED_BEFORE[min(attempts.count(session, asked), len(MAILED_BEFORE) - 1)]
    in_all = MAILS_MINUTES * settings().sign_in_attempts_per_minute
    limits = (
        asked,
        Limit("mail", email, before, DAY),
        Limit("mails from", network, in_all, HOUR),
    )
    if box == compared(email):
        return limits
    return (
        *limits,
        Limit("mail of mailbox", box, MARKED_MAILS_A_DAY, DAY),
        Limit("mail of mailbox from", f"{box}\0{network}", MAILS_A_DAY, DAY),
    )


def again(purpose: str, email: str, network: str, most: int = 1) -> Limit:
    """Return the limit of one code a minute for an address and a network.

    Args:
        purpose: as in `PendingProof`.
        email: the address.
        network: the client's network.
        most: codes a minute; more than 1 where each is for something else.
    """
    return Limit(f"{purpose} mail again", f"{email.lower()}\0{network}", most, MINUTE)


def ask_for_mail(
    session: Session,
    purpose: str,
    email: str,
    network: str,
    *more: Limit,
    is_known: bool = False,
) -> Asked:
    """Count a requested email, if it is to be sent.

    An address without an account counts like one with an account.

    Args:
        session: the transaction.
        purpose: as in `PendingProof`.
        email: the address.
        network: the client's network.
        more: further limits.
        is_known: as for `at`.
    """
    sooner = again(purpose, email, network)
    if attempts.take(sooner):
        return Asked(is_on_its_way=True)
    wait = attempts.take(*mails(session, email, network, is_known=is_known), *more)
    if wait:
        attempts.give_back(sooner)
    return Asked(wait=wait)


def _asked(email: str, network: str) -> Limit:
    # By address and not by mailbox: a request at one address gives no claim to another's code.
    return Limit("mail from", f"{email}\0{network}", len(MAILED_BEFORE), DAY)


def is_sign_in_recorded(session: Session, account_id: UUID, *, is_new_place: bool) -> bool:
    """Return whether the audit log gets this sign-in, which is counted in any case."""
    subject, (a_minute, an_hour) = str(account_id), SIGN_INS
    if is_new_place:
        return attempts.note(session, Limit("recorded new places of", subject, an_hour, HOUR))
    return attempts.note(
        session,
        Limit("recorded sign-ins of", subject, a_minute, MINUTE),
        Limit("recorded sign-ins of", subject, an_hour, HOUR),
    )


def is_failure_recorded(session: Session, account_id: UUID | None, network: str) -> bool:
    """Return whether the audit log gets this failed sign-in, which is counted in any case.

    The same work is done with and without an account, recorded or not: otherwise the response time
    would show which addresses have an account.

    Args:
        session: the transaction that records it.
        account_id: the account; None if there is none.
        network: the client's network.
    """
    limits = (
        Limit("failures without account", network, 1, HOUR),
        Limit("failures without account", "", FAILURES_AN_HOUR, HOUR),
    )
    if account_id is not None:
        limits = (
            Limit("failures of", str(account_id), 1, MINUTE),
            Limit("failures of", str(account_id), HOUR // MINUTE, HOUR),
        )
    return attempts.note(session, *limits)


def tries(code_id: UUID, place: str) -> Limit:
    """Return the limit of a code's tries for a party with a claim to it, apart from strangers.

    Args:
        code_id: the code.
        place: the network that requested it or that its account is used from; or `A_DEVICE`.
    """
    return Limit("tries of", f"{code_id}\0{place}", TRIES, HOUR)


def new_addresses(account_id: UUID) -> Limit:
    """Return the limit of codes for new addresses of an account, whichever these are."""
    return Limit("new addresses of", str(account_id), NEW_ADDRESSES_A_DAY, DAY)


def is_own(session: Session, kind: Kind, email: str, network: str) -> bool:
    """Return whether an account was used from a network or, for codes, requested one from there.

    A request counts whether or not there was an account to mail a code for.
    """
    if kind == "code" and attempts.count(session, _asked(email, network)):
        return True
    known = (
        select(KnownNetwork.network)
        .join(Account, Account.id == KnownNetwork.account_id)
        .where(Account.email == email, KnownNetwork.network == network)
    )
    return session.execute(known.limit(1)).first() is not None


def is_known(session: Session, email: str, device_token: str) -> bool:
    """Return whether a device token proves an earlier sign-in to an account.

    Args:
        session: the transaction.
        email: the account's address.
        device_token: from an earlier sign-in; empty if there was none.
    """
    if not device_token:
        return False
    wanted = select(Account.id, Account.password_hash).where(Account.email == email.lower())
    found = session.execute(wanted).first()
    return found is not None and device_tokens.is_token(device_token, *found)


def remember(session: Session, account: Account, network: str) -> bool:
    """Record that an account is used from a network. Return whether that network is new."""
    is_it = KnownNetwork.account_id == account.id, KnownNetwork.network == network
    if session.scalar(select(KnownNetwork.id).where(*is_it)) is not None:
        used = update(KnownNetwork).where(
            *is_it, KnownNetwork.last_used_at < func.now() - timedelta(days=1)
        )
        session.execute(used.values(last_used_at=func.now()))
        return False
    made = insert(KnownNetwork).values(id=new_id(), account_id=account.id, network=network)
    session.execute(made.on_conflict_do_nothing())
    return True


def remember_alone(session: Session, account: Account, network: str) -> None:
    """Make a network the only known one of an account.

    A thief's network would otherwise count among the owner's for a year and use up their limits.
    """
    others = KnownNetwork.network != network
    session.execute(delete(KnownNetwork).where(KnownNetwork.account_id == account.id, others))
    remember(session, account, network)
