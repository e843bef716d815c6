"""Pages of an upload: the form, the preview, the progress, and the rows that failed."""

from services.portal.pages.uploads import carried, sending
from services.portal.pages.uploads.carried import FIELD, Carried
from services.portal.pages.uploads.judging import MOST_BYTES, MOST_ROWS
from services.portal.web.page import Page, Visit
from shared.intake.csv_files import COLUMNS, METADATA, FileError
from shared.web.forms import MAX_LARGE_BYTES
from shared.web.mount import Result
from shared.web.results import File, View

PATH = "/upload"
SHOWN = 50
"""Rows of each list on a page; the file of failed rows has all."""


def show(visit: Visit) -> Result:
    """Show the form."""
    return _form(visit)


def preview(visit: Visit) -> View:
    """Show which rows are valid, and the faults of the others."""
    chosen = visit.files.get("file")
    if chosen is None or not chosen.content:
        return _form(visit, "Choose a file first.")
    name = chosen.name[-100:] or "orders.csv"
    try:
        most = visit.api.get("/webhook/limits/")["max_body_bytes"]
        held = Carried(name, chosen.content, body_bytes=most)
        file = held.file(visit.business.account_id)
    except FileError as error:
        return _form(visit, f"{name} cannot be sent: {error}.")
    about = {
        "path": PATH,
        "file": file,
        "upload": carried.seal(held, visit.business.account_id),
        "shown": SHOWN,
    }
    return View("upload_preview.html", about)


def send(visit: Visit) -> Result:
    """Send rows for some seconds and show the progress."""
    account_id = visit.business.account_id
    held = carried.open_(visit.field(FIELD), account_id)
    file = held.file(account_id)
    held, why = sending.step(visit.api, account_id, file, held)
    about = {
        "path": PATH,
        "file": file,
        "held": held,
        "why": why,
        "upload": carried.seal(held, account_id),
        "failed": [(line, *held.failed[line]) for line in sorted(held.failed)],
        "shown": SHOWN,
    }
    return View("upload_sending.html", about)


def give_back(visit: Visit) -> Result:
    """Return the rows that failed with the reasons, to be corrected and sent again."""
    account_id = visit.business.account_id
    held = carried.open_(visit.field(FIELD), account_id)
    file = held.file(account_id)
    return File(*file.given_back(held.refused(file)))


def _form(visit: Visit, wrong: str = "") -> View:
    application = visit.api.find("/kyc/")
    about = {
        "path": PATH,
        "is_approved": application is not None and application["status"] == "approved",
        "columns": COLUMNS,
        "metadata": METADATA,
        "most_bytes": MOST_BYTES,
        "most_rows": MOST_ROWS,
        "wrong": wrong,
    }
    return View("upload.html", about, 400 if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page(
        "POST",
        PATH,
        "business",
        send,
        asks=preview,
        takes_files=True,
        max_form_bytes=MAX_LARGE_BYTES,
    ),
    Page("POST", f"{PATH}/failed", "business", give_back, max_form_bytes=MAX_LARGE_BYTES),
)
