"""The rows of a file on their way: signed with the business's own secret, at its webhook's URL.

A step takes some seconds, and a page comes between two of them. A row is sent again until it has
its answer, always under the same key: so it counts once, however often and from how many pages.
"""

import hashlib
import threading
import time
from http import HTTPStatus

from msgspec.structs import replace

from services.portal.pages.uploads.carried import Carried
from services.portal.pages.uploads.judging import File
from services.portal.web.api import Asking, Refused
from shared.intake.order_files import Line
from shared.security import standard_signing
from shared.web.results import PageError

SECONDS = 4.0
AT_ONCE = 4
"""Steps at a time, each of another business: it holds one of the portal's threads."""
SOON = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)
"""The same row in a moment: the rate, or a copy of it that is on its way."""
OTHERS_TOO = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
"""No other row would fare better now."""
NO_ANSWER = (
    "Order Fellow does not answer at the moment. Go on in a minute: a row without an answer goes "
    "again under its key, and counts once."
)
_at_work: set[str] = set()  # the accounts whose rows are being sent
_counting = threading.Lock()


def step(
    api: Asking, account_id: str, file: File, carried: Carried, seconds: float = SECONDS
) -> tuple[Carried, str]:
    """Send some rows; before the first of them the audit log is told of the file, once.

    Args:
        api: as the business asks it.
        account_id: whose.
        file: what `carried` has.
        carried: how far it is.
        seconds: for how long, about.

    Returns:
        How far it is now; and why it does not go on by itself, in words, where it does not.
    """
    until = time.monotonic() + seconds
    # Nobody waits here, which would hold a thread as well.
    with _counting:
        if account_id in _at_work or len(_at_work) >= AT_ONCE:
            return carried, ""
        _at_work.add(account_id)
    try:
        if not carried.done and not carried.is_told:
            digest = hashlib.sha256(carried.content).hexdigest()
            told = {"sha256": digest, "orders": file.orders, "updates": file.updates}
            api.post("/webhooks/files/", told)
            carried = replace(carried, is_told=True)
        secret = api.get("/webhook/secret/")["signing_secret"]
        while carried.done < len(file.taken) and time.monotonic() < until:
            line = file.taken[carried.done]
            try:
                _send(api, account_id, secret, line)
            except Refused as refused:
                if refused.status in SOON:
                    left = max(until - time.monotonic(), 0.0)
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


def _send(api: Asking, account_id: str, secret: str, line: Line) -> None:
    signed = standard_signing.headers(secret, line.key, time.time(), line.body)
    api.webhook(account_id, signed, line.body)
