"""What is commanded about a business: its secrets, its rate, and whether it is let in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.ops.commands import outcomes
from services.ops.commands.giving import give
from services.ops.console.web.following import follow
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import positive
from services.ops.timelines import credentials
from services.ops.users.rights import Right
from shared.bus.contract.events import AccountBlock, SecretRevoke, SecretRotate, WebhookLimit
from shared.db.models import Account
from shared.db.session import engine
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect

Command = SecretRotate | SecretRevoke | WebhookLimit | AccountBlock


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that can be commanded.

    Attributes:
        does: what the button of the question says, before the business's name.
        follows: what comes of it, in a sentence.
        made: the command of an account and the form's fields.
        is_danger: whether it cannot be taken back.
        needs: the field that must be filled in, where there is one.
    """

    does: str
    follows: str
    made: Callable[[UUID, Visit], Command]
    is_danger: bool = True
    needs: str = ""


def _revoked(account_id: UUID, visit: Visit) -> Command:
    one = visit.field("secret_id")
    return msgspec.convert(
        {
            "account_id": account_id,
            "secret_id": uuid_of(one) if one else None,
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


KINDS: Mapping[str, Kind] = {
    "replace": Kind(
        "Replace the webhook secret of",
        "It is told; the secret before works until its own end.",
        lambda account_id, _: SecretRotate(account_id=account_id, cause="operator"),
        is_danger=False,
    ),
    "replace_at_once": Kind(
        "Replace at once the webhook secrets of",
        "It is told; the secrets that we made for it stop working at once, and what it signs by "
        "them is refused until it sends with the new one.",
        lambda account_id, _: SecretRotate(
            account_id=account_id, cause="operator", revoke_previous=True
        ),
    ),
    "revoke": Kind(
        "Revoke webhook secrets of",
        "It is told the reason; what is signed with them is refused at once.",
        _revoked,
        needs="reason",
    ),
    "limit": Kind(
        "Set how much may be sent by",
        "Each worker of the ingress takes so many requests a second of it.",
        _limited,
        is_danger=False,
    ),
    "block": Kind(
        "Block",
        "It is told the reason; nobody signs in, its sessions and webhook secrets are refused.",
        lambda account_id, visit: _blocked(account_id, visit, blocked=True),
        needs="reason",
    ),
    "unblock": Kind(
        "Unblock",
        "It is told; its secrets work as before.",
        lambda account_id, visit: _blocked(account_id, visit, blocked=False),
        is_danger=False,
    ),
}


def ask(session: Session, visit: Visit) -> Question:
    """Name the command and the business."""
    kind, command = _read(visit)
    account = session.get(Account, command.account_id)
    if account is None:
        raise PageError(404, f"There is no business {command.account_id}.")
    facts = {"Business": account.company_name, "Email": account.email}
    if isinstance(command, WebhookLimit):
        facts["Requests a second"] = str(command.per_second or "the default")
    elif isinstance(command, SecretRevoke):
        everything = (
            "everything that it signs by: also the secrets of its shops and its public keys"
        )
        facts["Secret"] = str(command.secret_id or everything)
    elif isinstance(command, SecretRotate):
        secrets, _ = credentials.secrets(session, account.id)
        keys = credentials.public_keys(session, account.id)
        facts["Goes on working"] = credentials.staying(secrets, keys)
    return Question(
        f"{kind.does} {account.company_name}?",
        f"{kind.does} {account.company_name}",
        f"/accounts/{account.id}",
        facts=facts | {"Reason": getattr(command, "reason", "")},
        more=kind.follows,
        is_danger=kind.is_danger,
    )


def command(session: Session, visit: Visit) -> Result:
    """Publish a command; what becomes of it is shown when it is known."""
    made = _read(visit)[1]
    with visit.system.broker(session, gives=True) as connection:
        message_id = give(connection, engine(), made, visit.actor, person=visit.user.name)
    return Redirect(f"/accounts/{made.account_id}?commanded={message_id}")


def outcome(session: Session, visit: Visit) -> Result:
    """Whether a command was carried out: a piece of a page, which asks again until it was."""
    account_id = uuid_of(visit.path["account_id"])
    return follow(session, visit, outcomes.SECRETS, account_id)


def _read(visit: Visit) -> tuple[Kind, Command]:
    kind = KINDS.get(visit.field("command"))
    if kind is None:
        raise PageError(400, f"A command is one of: {', '.join(KINDS)}.")
    if kind.needs and not visit.field(kind.needs):
        raise PageError(400, f"Fill in the {kind.needs}: the business is told it.")
    try:
        return kind, kind.made(uuid_of(visit.path["account_id"]), visit)
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
