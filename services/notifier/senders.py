"""What a business has chosen for its emails: its name, where answers go, language and time zone."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import arrays


class Sender(NamedTuple):
    """What a business has chosen; empty: ours, English, UTC.

    The name and the address are of emails about its orders; the others of all of its emails.
    """

    display_name: str = ""
    reply_to: str = ""
    language: str = ""
    time_zone: str = ""


OURS = Sender()


def chosen(session: Session, accounts: Iterable[UUID]) -> Mapping[UUID, Sender]:
    """What these accounts have chosen, by account; one query for all."""
    wanted = set(accounts)
    if not wanted:
        return {}
    rows = session.execute(_CHOSEN, {"ids": arrays.uuids(wanted)})
    return {
        row.account_id: Sender(row.display_name, row.reply_to, row.language, row.time_zone)
        for row in rows
    }


_CHOSEN = text("""
    SELECT account_id, display_name, reply_to, language, time_zone FROM email_senders
    WHERE account_id = ANY(CAST(:ids AS uuid[]))
""")
