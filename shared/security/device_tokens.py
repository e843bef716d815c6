"""By what a browser or a program is known with which somebody has signed in.

Whoever guesses has none, and so uses up nothing of what is its owner's (OWASP, "Slow Down Online
Guessing Attacks with Device Cookies"). It signs nobody in, and is good until the password
changes, or is hashed anew at the first sign-in after the parameters of hashes have changed.
"""

import hashlib
import hmac
from uuid import UUID


def token(id_: UUID, password_hash: str) -> str:
    """What a device keeps, and shows with the next attempt.

    Args:
        id_: of the account or user.
        password_hash: theirs.
    """
    # Nobody outside knows the hash, salt and all: 384 bits of chance (RFC 9106).
    key = hashlib.sha256(b"a browser's mark\0" + password_hash.encode()).digest()
    return hmac.new(key, id_.bytes, hashlib.sha256).hexdigest()


def is_token(given: str, id_: UUID, password_hash: str) -> bool:
    """Whether a device shows the token of an account or user.

    Args:
        given: what it shows.
        id_: see `token`.
        password_hash: see `token`.
    """
    return hmac.compare_digest(given.encode(), token(id_, password_hash).encode())
