"""A business's settings for its emails: name, address for answers, language and time zone."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import arrays


class Sender(NamedTuple):
    """A business's settings; empty for our name and address, English, UTC.

    The name and the address apply to emails about its orders, the others to all of its emails.
    """

    display_name: str = ""
    reply_to: str = ""
    language: str = ""
    time_zone: str = ""


OURS = Sender()


def chosen(session: Session, accounts: Iterable[UUID]) -> Mapping[UUID, Sender]:
    """Return the settings of accounts, by account id; one query for all."""
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
