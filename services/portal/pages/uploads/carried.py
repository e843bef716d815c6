"""State of an upload, which its pages hold sealed for their business.

The server stores nothing of a file: a restart or another portal process does not lose it, and no
job has to delete it.
"""

import base64
import zlib

import msgspec

from services.portal.pages.uploads.judging import MOST_BYTES, File, judge
from shared.intake.csv_files import Failed
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web.results import PageError

FIELD = "upload"


class Carried(msgspec.Struct, frozen=True):
    """A file and the progress of sending it.

    Attributes:
        name: the file's name in the browser.
        content: the raw bytes.
        done: how many of the valid rows were answered.
        failed: the rows that were not accepted: code and sentence by line number.
        is_told: whether the audit log has the file.
        body_bytes: the webhook's limit of a body, in bytes.
    """

    name: str
    content: bytes
    done: int = 0
    failed: dict[int, tuple[str, str]] = msgspec.field(default_factory=dict)
    is_told: bool = False
    body_bytes: int = MOST_BYTES

    @property
    def accepted(self) -> int:
        """Return how many rows were accepted."""
        return self.done - len(self.failed)

    def file(self, account_id: str) -> File:
        """Validate the file again."""
        return judge(self.name, self.content, account_id, self.body_bytes)

    def refused(self, file: File) -> dict[int, Failed]:
        """Return the rows that were not accepted, by line number."""
        keys = {line.number: line.key for line in file.taken}
        return {line: Failed(*why, keys[line]) for line, why in self.failed.items()}


def seal(carried: Carried, account_id: str) -> str:
    """Return the text for a hidden field of a page."""
    packed = zlib.compress(msgspec.msgpack.encode(carried))
    sealed = portal_sealer().seal(packed, _purpose(account_id))
    return base64.urlsafe_b64encode(sealed).decode()


def open_(text: str, account_id: str) -> Carried:
    """Return the state that `seal` put into a page.

    Raises:
        PageError: 400 if it was sealed for another business or under a removed key.
    """
    try:
        packed = portal_sealer().open(base64.urlsafe_b64decode(text), _purpose(account_id))
    except (CannotOpenError, ValueError):
        raise PageError(400, "The upload is out of date: choose the file again.") from None
    return msgspec.msgpack.decode(zlib.decompress(packed), type=Carried)


def _purpose(account_id: str) -> str:
    return f"upload:{account_id}"
