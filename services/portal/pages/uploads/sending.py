"""Sends the rows of a file to the business's webhook, signed with its secret.

A step takes some seconds, and the browser asks for the next one. A row is sent until it is
answered, always under the same idempotency key: so it counts once, from however many pages.
"""

import hashlib
import threading
import time
from http import HTTPStatus

from msgspec.structs import replace

from services.portal.pages.uploads.carried import Carried
from services.portal.pages.uploads.judging import File
from services.portal.web.api import ApiClient, Refused
from shared.intake.order_files import Line
from shared.security import sender_signing
from shared.web.results import PageError

SECONDS = 4.0
AT_ONCE = 4
"""Concurrent steps, one for each business: a step occupies one of the portal's threads."""
SOON = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)
"""Retry the row: the rate limit, or a copy of it is being processed."""
OTHERS_TOO = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
"""Stop: the other rows would get the same answer."""
NO_ANSWER = (
    "Order Fellow does not answer at the moment. Go on in a minute: a row without an answer goes "
    "again under its key, and counts once."
)
_at_work: set[str] = set()  # the accounts whose rows are being sent
_counting = threading.Lock()


def step(
    api: ApiClient, account_id: str, file: File, carried: Carried, seconds: float = SECONDS
) -> tuple[Carried, str]:
    """Send some rows; before the first one, announce the file to the audit log, once.

    Args:
        api: the API client of the browser.
        account_id: the business.
        file: the validated file.
        carried: the state of the upload.
        seconds: the approximate duration.

    Returns:
        The new state, and a sentence if the upload cannot go on by itself; else an empty text.
    """
    deadline = time.monotonic() + seconds
    # Do not wait for a free place, which would occupy a thread as well.
    with _counting:
        if account_id in _at_work or len(_at_work) >= AT_ONCE:
            return carried, ""
        _at_work.add(account_id)
    try:
        if not carried.done and not carried.is_told:
            digest = hashlib.sha256(carried.content).hexdigest()
            announced = {"sha256": digest, "orders": file.orders, "updates": file.updates}
            api.post("/webhooks/files/", announced)
            carried = replace(carried, is_told=True)
        secret = api.get("/webhook/secret/")["signing_secret"]
        while carried.done < len(file.taken) and time.monotonic() < deadline:
            line = file.taken[carried.done]
            try:
                _send(api, account_id, secret, line)
            except Refused as refused:
                if refused.status in SOON:
                    left = max(deadline - time.monotonic(), 0.0)
                    time.sleep(min(max(refused.retry_after, 1), left))
                    continue
                if refused.status in OTHERS_TOO:
                    raise
                failed = carried.failed | {line.number: (refused.code, str(refused))}
                carried = replace(carried, failed=failed)
            carried = replace(carried, done=carried.done + 1)
    except PageError:
        return carried, NO_ANSWER
    except Refused as refused:
        if refused.code == "not_signed_in":
            raise
        return carried, str(refused)
    finally:
        _at_work.discard(account_id)
    return carried, ""


def _send(api: ApiClient, account_id: str, secret: str, line: Line) -> None:
    signed = sender_signing.standard_headers(secret, line.key, time.time(), line.body)
    api.webhook(account_id, signed, line.body)
