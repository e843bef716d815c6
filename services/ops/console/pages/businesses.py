"""Commands about a business: its secrets, its rate limit, and blocking it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.ops.audit.actions import address_fault
from services.ops.commands import outcomes
from services.ops.commands.giving import give
from services.ops.console.web.following import follow
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import positive
from services.ops.timelines import credentials
from services.ops.users.rights import Right
from shared.bus.contract.events import AccountBlock, SecretRevoke, SecretRotate, WebhookLimit
from shared.db.models import Account, WebhookPolicy
from shared.db.session import engine
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect

ALL = "all"
"""The choice of the revoke form for all secrets and public keys."""
Command = SecretRotate | SecretRevoke | WebhookLimit | AccountBlock


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of command.

    Attributes:
        does: the text of the question's button, before the business's name.
        follows: a sentence about its effect.
        made: makes the command from an account and the form's fields.
        is_danger: whether it cannot be undone.
        needs: the required fields, each with the sentence for an empty one.
    """

    does: str
    follows: str
    made: Callable[[UUID, Visit], Command]
    is_danger: bool = True
    needs: Mapping[str, str] = field(default_factory=dict)


def _revoked(account_id: UUID, visit: Visit) -> Command:
    chosen = visit.field("secret_id")
    return msgspec.convert(
        {
            "account_id": account_id,
            "secret_id": None if chosen == ALL else uuid_of(chosen),
            "reason": visit.field("reason"),
        },
        SecretRevoke,
    )


def _limited(account_id: UUID, visit: Visit) -> Command:
    rate = visit.field("per_second")
    per_second = positive(rate) if rate else None
    return msgspec.convert({"account_id": account_id, "per_second": per_second}, WebhookLimit)


def _blocked(account_id: UUID, visit: Visit, *, blocked: bool) -> Command:
    given = {"account_id": account_id, "blocked": blocked, "reason": visit.field("reason")}
    return msgspec.convert(given, AccountBlock)


_REASON = {"reason": "Fill in the reason: the business is told it."}
KINDS: Mapping[str, Kind] = {
    "replace": Kind(
        "Replace the webhook secret of",
        "It is told; the previous secret works until it expires.",
        lambda account_id, _: SecretRotate(account_id=account_id, cause="operator"),
        is_danger=False,
    ),
    "replace_at_once": Kind(
        "Replace at once the webhook secrets of",
        "It is told; the secrets that we issued to it stop working immediately, and requests "
        "signed with them are refused until it uses the new one.",
        lambda account_id, _: SecretRotate(
            account_id=account_id, cause="operator", revoke_previous=True
        ),
    ),
    "revoke": Kind(
        "Revoke one webhook secret or public key of",
        "It is told the reason; requests signed with it are refused immediately.",
        _revoked,
        needs={"secret_id": "Choose which secret or public key is revoked.", **_REASON},
    ),
    "limit": Kind(
        "Set how much may be sent by",
        "Each worker of the ingress accepts so many of its requests a second.",
        _limited,
        is_danger=False,
    ),
    "block": Kind(
        "Block",
        "It is told the reason; its sign-ins, sessions and webhook secrets are refused.",
        lambda account_id, visit: _blocked(account_id, visit, blocked=True),
        needs=_REASON,
    ),
    "unblock": Kind(
        "Unblock",
        "It is told; its secrets work as before.",
        lambda account_id, visit: _blocked(account_id, visit, blocked=False),
        is_danger=False,
    ),
}


def ask(session: Session, visit: Visit) -> Question:
    """Ask before a command, naming it and the business."""
    kind, command, account = _read(session, visit)
    does = kind.does
    facts = {"Business": account.company_name, "Email": account.email}
    if isinstance(command, WebhookLimit):
        policy = session.get(WebhookPolicy, account.id)
        facts["Now"] = f"{(policy and policy.rate_per_second) or 'the default'} a second"
        facts["Requests a second"] = str(command.per_second or "the default")
    elif isinstance(command, SecretRevoke):
        everything = (
            "everything that it signs by: also the secrets of its shops and its public keys"
        )
        facts["Secret or public key"] = str(command.secret_id or everything)
        if command.secret_id is None:
            does = "Revoke all webhook secrets and public keys of"
    elif isinstance(command, SecretRotate):
        secrets, _ = credentials.secrets(session, account.id)
        keys = credentials.public_keys(session, account.id)
        facts["Goes on working"] = credentials.staying(secrets, keys)
    return Question(
        f"{does} {account.company_name}?",
        f"{does} {account.company_name}",
        f"/accounts/{account.id}",
        facts=facts | {"Reason": getattr(command, "reason", "")},
        more=kind.follows,
        is_danger=kind.is_danger,
    )


def command(session: Session, visit: Visit) -> Result:
    """Publish a command; the page then shows its outcome."""
    _, made, _ = _read(session, visit)
    with visit.system.broker(session, gives=True) as connection:
        message_id = give(connection, engine(), made, visit.actor, person=visit.user.name)
    return Redirect(f"/accounts/{made.account_id}?commanded={message_id}")


def outcome(session: Session, visit: Visit) -> Result:
    """Return the outcome of a command as a fragment that polls until it is known."""
    account_id = uuid_of(visit.path["account_id"])
    return follow(session, visit, outcomes.SECRETS, account_id)


def _read(session: Session, visit: Visit) -> tuple[Kind, Command, Account]:
    kind = KINDS.get(visit.field("command"))
    if kind is None:
        raise PageError(400, f"A command is one of: {', '.join(KINDS)}.")
    for name, sentence in kind.needs.items():
        if not visit.field(name):
            raise PageError(400, sentence)
    account_id = uuid_of(visit.path["account_id"])
    account = session.get(Account, account_id)
    if account is None:
        raise PageError(404, f"There is no business {account_id}.")
    if account.closed_at is not None:
        raise PageError(409, "The business has closed its account: there is nothing to change.")
    if wrong := address_fault(visit.field("reason"), account.email):
        raise PageError(400, f"The reason {wrong}.")
    try:
        return kind, kind.made(account_id, visit), account
    except msgspec.ValidationError:
        raise PageError(
            400,
            "A reason has up to 4,000 characters, without NUL; a rate is a whole number from 1 to "
            "1,000,000.",
        ) from None


PAGES = (
    Page("POST", "/accounts/{account_id}", Right.KYC, command, asks=ask, plain=[Right.KYC]),
    Page(
        "GET",
        "/accounts/{account_id}/outcomes/{message_id}",
        "watch",
        outcome,
        asks_by_itself=True,
    ),
)
