"""Who may guess how often: the guesser is held up, and the owner is not.

Guesses at one account are counted apart for the networks that it was used from and the devices that
were signed in with, and for all others together: who floods an account from elsewhere uses up what
strangers have, and its owner signs in where they always do, or with what they always do. In all,
fewer than 100 passwords and 100 codes are looked at for one account (NIST SP 800-63B, 5.2.2; OWASP
ASVS 2.2.1) in an hour that begins with the first; across the edge of two such hours it may be twice
as many, and a code has ten tries in all. A new code does not begin a new count. An account that is
not there counts like one that is.
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

Kind = Literal["password", "code"]

attempts = Attempts(AttemptCount, code_sealer)

STRANGERS_AN_HOUR = {"password": 45, "code": 20}
"""All networks together that do not know the account."""
OWN_AN_HOUR = {"password": 20, "code": 9}
"""Each network that does. For codes, whoever asked for one: that is `MAILS_A_DAY` at most."""
NETWORKS_PASSWORDS_AN_HOUR = 25
"""All networks together that know the account; its devices and sessions have theirs beside it."""
MAILS_A_DAY = 8
"""What anybody can make us mail to one address; as many again from the networks where its account
is used, and by its devices."""
MAILED_BEFORE = (MAILS_A_DAY, 6, 5, 4)
"""How many may have been mailed to an address before a network's first, second, … request of a day:
what one network uses up leaves others theirs, and the last of all go to those who ask first."""
_DEVICES = "a device"
"""In place of a network: those that are known by their token count together, and apart from the
networks, where others may be too."""
_NETWORKS = "networks"
"""In place of a network: all that the account was used from."""
NEW_ADDRESSES_A_DAY = 8
"""Codes that one account can have mailed to addresses that it wants: any, so also strangers'."""


class Asked(NamedTuple):
    """What comes of asking for an email; of neither, it is to be mailed.

    Attributes:
        wait: seconds until one may be mailed; 0 where one may be now.
        is_on_its_way: whether it was asked for a moment ago.
    """

    wait: int = 0
    is_on_its_way: bool = False


def at(
    session: Session, kind: Kind, email: str, network: str, *, is_known: bool = False
) -> tuple[Limit, ...]:
    """What a guess counts against.

    Args:
        session: the transaction.
        kind: what is guessed.
        email: at whose.
        network: from where.
        is_known: whether it comes from a device or a session of the account's, wherever that is.
    """
    config, email = settings(), email.lower()
    if not is_known and not is_own(session, kind, email, network):
        return (
            Limit(f"{kind} of", email, config.account_attempts_per_minute, MINUTE),
            Limit(f"{kind} of", email, STRANGERS_AN_HOUR[kind], HOUR),
            Limit(f"{kind} from", network, config.sign_in_attempts_per_minute, MINUTE),
        )
    place = _DEVICES if is_known else network
    own = Limit(f"own {kind}", f"{email}\0{place}", OWN_AN_HOUR[kind], HOUR)
    if kind == "code" or is_known:
        return (own,)
    together = Limit(f"own {kind}", f"{email}\0{_NETWORKS}", NETWORKS_PASSWORDS_AN_HOUR, HOUR)
    return own, together


def mails(
    session: Session, email: str, network: str, *, is_known: bool = False
) -> tuple[Limit, ...]:
    """What an email that anybody can ask for counts against; the arguments as those of `at`."""
    email = email.lower()
    if is_known or is_own(session, "password", email, network):
        place = _DEVICES if is_known else _NETWORKS
        return (Limit("own mail", f"{email}\0{place}", MAILS_A_DAY, DAY),)
    asked = _asked(email, network)
    before = MAILED_BEFORE[min(attempts.count(session, asked), len(MAILED_BEFORE) - 1)]
    return asked, Limit("mail", email, before, DAY)


def again(purpose: str, email: str, network: str, most: int = 1) -> Limit:
    """One code a minute for an address that a network asks for: the one before is on its way.

    Args:
        purpose: what the code is to prove, as in `PendingProof`.
        email: the address.
        network: from where.
        most: more where each is for something else, which counts all the same.
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
    """Count an email that is asked for; what is not to be mailed counts nothing.

    An address that is nobody's counts like any other.

    Args:
        session: the transaction.
        purpose: what the code is to prove, as in `PendingProof`.
        email: the address.
        network: from where.
        more: what else it counts against.
        is_known: see `at`.
    """
    sooner = again(purpose, email, network)
    if attempts.take(sooner):
        return Asked(is_on_its_way=True)
    wait = attempts.take(*mails(session, email, network, is_known=is_known), *more)
    if wait:
        attempts.give_back(sooner)
    return Asked(wait=wait)


def _asked(email: str, network: str) -> Limit:
    return Limit("mail from", f"{email}\0{network}", len(MAILED_BEFORE), DAY)


def new_addresses(account_id: UUID) -> Limit:
    """What a code for another address of an account's counts against, whatever address that is."""
    return Limit("new addresses of", str(account_id), NEW_ADDRESSES_A_DAY, DAY)


def is_own(session: Session, kind: Kind, email: str, network: str) -> bool:
    """Whether an account was used from a network or, for codes, one was asked for from there.

    What was asked for counts whether there was an account to mail a code for or not.
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
    """Whether a device shows by its token that somebody has signed in with it to an account.

    Args:
        session: the transaction.
        email: the account's address.
        device_token: from an earlier sign-in; empty where there was none.
    """
    if not device_token:
        return False
    wanted = select(Account.id, Account.password_hash).where(Account.email == email.lower())
    found = session.execute(wanted).first()
    return found is not None and device_tokens.is_token(device_token, *found)


def remember(session: Session, account: Account, network: str) -> bool:
    """An account is used from a network.

    Returns:
        Whether it never was before, while it was from others.
    """
    there = select(KnownNetwork.network).where(KnownNetwork.account_id == account.id)
    known = set(session.scalars(there))
    if network in known:
        used = update(KnownNetwork).where(
            KnownNetwork.account_id == account.id,
            KnownNetwork.network == network,
            KnownNetwork.last_used_at < func.now() - timedelta(days=1),
        )
        session.execute(used.values(last_used_at=func.now()))
        return False
    made = insert(KnownNetwork).values(id=new_id(), account_id=account.id, network=network)
    session.execute(made.on_conflict_do_nothing())
    return bool(known)


def remember_alone(session: Session, account: Account, network: str) -> None:
    """An account is used from a network; from which it was before is forgotten.

    Where a thief was signed in they would count among the owner's for a year, and use theirs up.
    """
    others = KnownNetwork.network != network
    session.execute(delete(KnownNetwork).where(KnownNetwork.account_id == account.id, others))
    remember(session, account, network)
