"""Pages of the audit log: search it, and download it as CSV."""

import io
from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec
from sqlalchemy.orm import Session

from services.ops.audit import log
from services.ops.audit.log import Entry
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import positive
from services.ops.users.rights import Right
from shared.web.forms import beginning
from shared.web.mount import Result
from shared.web.results import File, View

AT_ONCE = 100
MOST_TO_SAVE = 50_000
SAVE_SECONDS = 60.0
"""The database's time for so many rows."""
KINDS = ("kyc.*", "secret.*", "account.*", "ops.*", "webhook.*")
# Details that contain no personal data.
IMPERSONAL = frozenset(
    {
        "account_id",
        "action",
        "application_id",
        "change",
        "command",
        "decision",
        "message_id",
        "message_type",
        "messages",
        "of",
        "page",
        "queue",
        "role",
        "second_factor",
        "secret_id",
    }
)
FIELDS = ("words", "type", "since", "until", "zone")


def show(session: Session, visit: Visit) -> Result:
    """Show a page of the log, the newest first."""
    before = positive(visit.query.get("before", "")) or None
    entries = _search(session, visit, AT_ONCE, before)
    wanted = {name: visit.query.get(name, "").strip() for name in FIELDS}
    about = {
        "path": "/audit",
        "entries": [(entry, _details(entry)) for entry in entries],
        "impersonal": IMPERSONAL,
        "wanted": wanted,
        "kinds": KINDS,
        "query": urlencode({name: value for name, value in wanted.items() if value}),
        "older": entries[-1].sequence if len(entries) == AT_ONCE else None,
        "before": before,
        "most_to_save": MOST_TO_SAVE,
    }
    return View("audit.html", about, of=log.rows_of(entries))


def save(session: Session, visit: Visit) -> Result:
    """Return the newest `MOST_TO_SAVE` rows as a file; its name says if there are more."""
    text = io.StringIO()
    found = _search(session, visit, MOST_TO_SAVE + 1)
    entries = found[:MOST_TO_SAVE]
    name = "audit.csv" if len(found) <= MOST_TO_SAVE else f"audit.newest-{MOST_TO_SAVE}.csv"
    log.write_csv(entries, text)
    content = text.getvalue().encode()
    return File(name, "text/csv; charset=utf-8", content, of=log.rows_of(entries))


def _search(
    session: Session, visit: Visit, limit: int, before: int | None = None
) -> Sequence[Entry]:
    zone = visit.query.get("zone", "")
    return log.search(
        session,
        words=visit.query.get("words", "").strip(),
        type_=visit.query.get("type", "").strip(),
        since=beginning(visit.query.get("since", ""), zone),
        until=beginning(visit.query.get("until", ""), zone, days=1),
        before=before,
        limit=limit,
        sees_persons=visit.user.may(Right.CUSTOMERS),
    )


def _details(entry: Entry) -> dict[str, str]:
    """Return the fact's fields, without the actor, as strings."""
    try:
        fields = msgspec.json.decode(entry.data)
    except msgspec.DecodeError:
        return {"data": entry.data}
    return {name: _words(value) for name, value in fields.items() if name not in ("by", "address")}


def _words(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


PAGES = (
    Page("GET", "/audit", "watch", show, plain=[Right.CUSTOMERS]),
    Page("GET", "/audit.csv", Right.CUSTOMERS, save, plain=[Right.CUSTOMERS], seconds=SAVE_SECONDS),
)
