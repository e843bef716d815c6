"""How emails about a business's orders name it, and where answers to them go."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.notifier.composing import Email
from shared.db import arrays


class Sender(NamedTuple):
    """What a business has chosen; empty: ours."""

    display_name: str = ""
    reply_to: str = ""


OURS = Sender()


def chosen(session: Session, emails: Sequence[Email]) -> Mapping[UUID, Sender]:
    """What the businesses have chosen whose orders these emails are about, by account."""
    accounts = {email.account_id for email in emails if email.account_id is not None}
    if not accounts:
        return {}
    rows = session.execute(_CHOSEN, {"ids": arrays.uuids(accounts)})
    return {row.account_id: Sender(row.display_name, row.reply_to) for row in rows}


_CHOSEN = text("""
    SELECT account_id, display_name, reply_to FROM email_senders
    WHERE account_id = ANY(CAST(:ids AS uuid[]))
""")
