"""A fragment that shows the outcome of a command, and polls until it is known."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.ops.commands import outcomes
from services.ops.commands.outcomes import Outcome, Recipient
from services.ops.console.web.page import Visit
from services.ops.console.web.reading import positive
from shared.db.session import engine, release_connection
from shared.web.forms import uuid_of
from shared.web.results import PageError, View

GIVE_UP_AFTER = 60  # polls, one a second


def follow(session: Session, visit: Visit, recipient: Recipient, account_id: UUID | None) -> View:
    """Return the outcome of the command whose message id is in the path.

    Args:
        session: of the page; its transaction is ended.
        visit: the request; `look` in its query counts the polls.
        recipient: the service that carries the command out.
        account_id: the business that it is about.
    """
    message_id = uuid_of(visit.path["message_id"])
    polls = positive(visit.query.get("look", ""))
    release_connection(session)
    is_last = polls >= GIVE_UP_AFTER
    if is_last or polls % outcomes.LETTERS_EVERY == outcomes.LETTERS_EVERY - 1:
        try:
            with visit.system.broker(None) as connection:
                found = outcomes.outcome_of(engine(), message_id, recipient, connection)
        except PageError as error:  # of the broker; the database may have the outcome
            found = outcomes.outcome_of(engine(), message_id, recipient)
            found = found or Outcome("waiting", str(error))
    else:
        found = outcomes.outcome_of(engine(), message_id, recipient)
    if found is None or found.state == "waiting":
        found = outcomes.given_up(recipient, "a minute", found) if is_last else None
    about = {
        "outcome": found,
        "account_id": account_id,
        "again": visit.asked_for,
        "look": polls + 1,
        "recipient": recipient,
    }
    return View("outcome.html", about)
