"""The audit log: who, what, when, from where; to search, and to take away as CSV."""

import csv
import io
from dataclasses import asdict
from datetime import date
from urllib.parse import urlencode

import msgspec
from sqlalchemy.orm import Session

from services.ops import audit_search
from services.ops.audit_search import Entry, Wanted
from services.ops.console.page import File, Page, Result, View, Visit
from services.ops.console.reading import positive

AT_ONCE = 100
MOST_TO_SAVE = 100_000
KINDS = ("kyc", "secret", "account", "ops", "webhook")
COLUMNS = ("sequence", "at", "who", "from", "what", "about", "data")
# What a spreadsheet takes for a formula when a cell begins with it (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def show(session: Session, visit: Visit) -> Result:
    """A page of it, the newest first."""
    wanted = _wanted(visit)
    before = positive(visit.query.get("before", "")) or None
    entries = audit_search.search(session, wanted, limit=AT_ONCE, before=before)
    given = {name: value for name, value in asdict(wanted).items() if value}
    about = {
        "path": "/audit",
        "entries": [(entry, _details(entry)) for entry in entries],
        "wanted": wanted,
        "kinds": KINDS,
        "query": urlencode(given),
        "older": entries[-1].sequence if len(entries) == AT_ONCE else None,
        "before": before,
    }
    return View("audit.html", about)


def save(session: Session, visit: Visit) -> Result:
    """The same as a file, the newest `MOST_TO_SAVE` rows."""
    entries = audit_search.search(session, _wanted(visit), limit=MOST_TO_SAVE)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for entry in entries:
        at = entry.happened_at.isoformat(timespec="milliseconds")
        said = (entry.actor, entry.address, entry.type, entry.correlation_id, entry.data)
        rows.writerow([entry.sequence, at, *map(_cell, said)])
    return File("audit.csv", "text/csv; charset=utf-8", text.getvalue().encode())


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _details(entry: Entry) -> dict[str, str]:
    """What the fact says beside who did it, as words."""
    try:
        said = msgspec.json.decode(entry.data)
    except msgspec.DecodeError:
        return {"data": entry.data}
    shown = {name: value for name, value in said.items() if name not in ("by", "address")}
    return {
        name: value if isinstance(value, str) else _json(value) for name, value in shown.items()
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _wanted(visit: Visit) -> Wanted:
    query = {name: value.strip() for name, value in visit.query.items()}
    return Wanted(
        who=query.get("who", ""),
        what=query.get("what", ""),
        about=query.get("about", ""),
        since=_day(query.get("since", "")),
        until=_day(query.get("until", "")),
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


PAGES = (
    Page("GET", "/audit", "watch", show),
    Page("GET", "/audit.csv", "watch", save),
)
