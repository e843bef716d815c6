"""HTTP API: list and end the sessions of an account."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.accounts import sessions
from shared.docstrings import summary
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route


class SessionView(msgspec.Struct, kw_only=True):
    """A session, and the network and client that began it; `is_this` marks that of the request."""

    id: UUID
    network: str
    client: str
    created_at: datetime
    renewed_at: datetime
    expires_at: datetime
    is_this: bool


class SessionList(msgspec.Struct, kw_only=True):
    """The live sessions, the last renewed first.

    `more`: whether there are further ones; `DELETE` ends these too.
    """

    sessions: list[SessionView]
    more: bool


def show(session: Session, call: Call[None, None]) -> Answer:
    """List your sessions."""
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
    """End all your sessions, including this one."""
    sessions.end(session, call.caller)
    return Answer(204)


def end_one(session: Session, call: Call[None, None]) -> Answer:
    """End one session and its tokens."""
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
