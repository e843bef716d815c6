"""What the pages of an upload carry from one to the next, sealed for their business.

So nothing of a file is kept on the server: neither a restart nor another portal loses it, and what
ends with the browser's page needs no end of its own.
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
    """A file, and how far it is sent.

    Attributes:
        name: as the browser calls it.
        content: all of it.
        done: of the rows that go, how many have their answer.
        failed: of these the ones that were not accepted: by line, the code and the sentence.
        is_told: whether the audit log was told that it is sent.
        body_bytes: the largest body that the webhook takes.
    """

    name: str
    content: bytes
    done: int = 0
    failed: dict[int, tuple[str, str]] = msgspec.field(default_factory=dict)
    is_told: bool = False
    body_bytes: int = MOST_BYTES

    @property
    def accepted(self) -> int:
        """How many were."""
        return self.done - len(self.failed)

    def file(self, account_id: str) -> File:
        """The file, judged again."""
        return judge(self.name, self.content, account_id, self.body_bytes)

    def refused(self, file: File) -> dict[int, Failed]:
        """Those that were not accepted, by line."""
        keys = {line.number: line.key for line in file.taken}
        return {line: Failed(*why, keys[line]) for line, why in self.failed.items()}


def seal(carried: Carried, account_id: str) -> str:
    """The text that a page has in it."""
    packed = zlib.compress(msgspec.msgpack.encode(carried))
    sealed = portal_sealer().seal(packed, _purpose(account_id))
    return base64.urlsafe_b64encode(sealed).decode()


def open_(text: str, account_id: str) -> Carried:
    """What a page had in it.

    Raises:
        PageError: 400, when it was made for another business, or under a key that is gone.
    """
    try:
        packed = portal_sealer().open(base64.urlsafe_b64decode(text), _purpose(account_id))
    except (CannotOpenError, ValueError):
        raise PageError(400, "The upload is out of date: choose the file again.") from None
    return msgspec.msgpack.decode(zlib.decompress(packed), type=Carried)


def _purpose(account_id: str) -> str:
    return f"upload:{account_id}"
