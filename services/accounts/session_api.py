"""The HTTP side of sessions: a business sees where it is signed in, and ends what is not its."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.accounts import sessions
from shared.docstrings import summary
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route


class SessionView(msgspec.Struct, kw_only=True):
    """One session: where it began, and by what; `is_this` is that of the request."""

    id: UUID
    network: str
    client: str
    created_at: datetime
    renewed_at: datetime
    expires_at: datetime
    is_this: bool


class SessionList(msgspec.Struct, kw_only=True):
    """The sessions that have not ended, the one renewed last first.

    `more`: whether there are others, which are not among these; `DELETE` ends them too.
    """

    sessions: list[SessionView]
    more: bool


def show(session: Session, call: Call[None, None]) -> Answer:
    """Where you are signed in."""
    live = sessions.live(session, call.caller)
    found = [
        SessionView(
            id=held.id,
            network=held.network,
            client=held.client,
            created_at=held.created_at,
            renewed_at=held.renewed_at,
            expires_at=held.expires_at,
            is_this=held.id == call.session_id,
        )
        for held in live[: sessions.MOST_LISTED]
    ]
    return Answer(200, SessionList(sessions=found, more=len(live) > len(found)))


def end_all(session: Session, call: Call[None, None]) -> Answer:
    """End every session of yours, this one too."""
    sessions.end(session, call.caller)
    return Answer(204)


def end_one(session: Session, call: Call[None, None]) -> Answer:
    """End one session; its tokens work no more."""
    try:
        ended = sessions.end(session, call.caller, UUID(call.path["session_id"]))
    except ValueError:
        ended = 0
    if not ended:
        raise ApiError(*_NOT_FOUND)
    return Answer(204)


_NOT_FOUND = (404, "session_not_found", "You have no such session, or it has ended.")

ROUTES = (
    Route(
        method="GET",
        path="/users/sessions/",
        handler=show,
        summary=summary(show),
        answers={200: SessionList},
        bearer=True,
        tag="Accounts",
    ),
    Route(
        method="DELETE",
        path="/users/sessions/",
        handler=end_all,
        summary=summary(end_all),
        answers={204: None},
        bearer=True,
        tag="Accounts",
    ),
    Route(
        method="DELETE",
        path="/users/sessions/{session_id}/",
        handler=end_one,
        summary=summary(end_one),
        answers={204: None},
        errors=(_NOT_FOUND,),
        bearer=True,
        tag="Accounts",
    ),
)
