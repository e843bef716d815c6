"""`fellow limit`: how many webhooks a business may send a second."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated
from uuid import UUID

import typer
from kombu import Connection
from sqlalchemy import Engine, Select, select
from sqlalchemy.exc import DBAPIError

from services.ops import decisions
from services.ops.surroundings import Surroundings
from shared.bus import topology
from shared.bus.events import WebhookLimit
from shared.db.models import Account, KycApplication
from shared.db.session import make_engine

CONSUMER = "services.secrets"
POLL_SECONDS = 0.1

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
PerSecond = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Requests a second, a worker.")
]
Default = Annotated[bool, typer.Option("--default", help="Back to ACCOUNT_RATE_PER_SECOND.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait until it is carried out.")]


def add_to(
    app: typer.Typer,
    find: Callable[[], Surroundings],
    broker: Callable[[Surroundings], AbstractContextManager[Connection]],
    say: Callable[[str], None],
) -> None:
    """Add the command.

    Args:
        app: to which.
        find: the system that the operator means.
        broker: connects to it.
        say: tells the operator.
    """

    @app.command("limit")
    def limit(
        business: Business,
        per_second: PerSecond = None,
        default: Default = False,
        wait: Wait = 5.0,
    ) -> None:
        """Set how many webhooks a business may send a second."""
        if default == (per_second is not None):
            say("Say either --per-second N or --default.")
            raise typer.Exit(2)
        system = find()
        if not system.has_database:
            say("The business is looked up in the database: set DATABASE_URL too.")
            raise typer.Exit(2)
        engine = make_engine(system.settings)
        try:
            account_id, name = _one(engine, business, say)
            with broker(system) as connection:
                command = WebhookLimit(account_id=account_id, per_second=per_second)
                message_id = decisions.publish(connection, command)
            rate = "the default rate" if default else f"{per_second} a second"
            say(f"Published: {name} gets {rate} (message {message_id}).")
            if wait and not _is_done_within(engine, message_id, wait):
                say(
                    f"Not carried out after {wait:g} s. It is safe in "
                    f"{topology.SECRETS_ROTATE.name}: is services.secrets running?"
                )
                raise typer.Exit(1)
        except DBAPIError:
            say("The database does not answer.")
            raise typer.Exit(1) from None


def _one(engine: Engine, business: str, say: Callable[[str], None]) -> tuple[UUID, str]:
    """The id and the name of the business that is meant."""
    with engine.connect() as connection:
        found = connection.execute(_matching(business.strip())).all()
    if len(found) != 1:
        say(f"{'No' if not found else 'More than one'} business matches {business}.")
        raise typer.Exit(1)
    return found[0].id, f"{found[0].company_name} ({found[0].email})"


def _matching(business: str) -> Select[UUID, str, str]:
    query = select(Account.id, Account.company_name, Account.email).limit(2)
    try:
        return query.where(Account.id == UUID(business))
    except ValueError:
        pass
    if "@" in business:
        return query.where(Account.email == business.lower())
    number = KycApplication.business_registration_number == business
    return query.where(
        select(KycApplication.id).where(KycApplication.account_id == Account.id, number).exists()
    )


def _is_done_within(engine: Engine, message_id: UUID, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not decisions.is_done(engine, message_id, CONSUMER):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
