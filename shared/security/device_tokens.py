"""Tokens of known devices: browsers and programs from which an account has signed in.

Attackers have none, so their guesses do not use up the owner's attempts (OWASP, "Slow Down Online
Guessing Attacks with Device Cookies"). A token does not authenticate. It is valid until the
password changes, or is rehashed because the hash parameters have changed.
"""

import hashlib
import hmac
from uuid import UUID


def token(id_: UUID, password_hash: str) -> str:
    """Return the token that a device stores and sends with its next attempt.

    Args:
        id_: of the account or user.
        password_hash: of the account or user.
    """
    # The hash is secret and contains a random salt: 384 bits of entropy (RFC 9106).
    key = hashlib.sha256(b"a browser's mark\0" + password_hash.encode()).digest()
    return hmac.new(key, id_.bytes, hashlib.sha256).hexdigest()


def is_token(candidate: str, id_: UUID, password_hash: str) -> bool:
    """Return whether a device sent the token of an account or user, in constant time.

    Args:
        candidate: the sent token.
        id_: see `token`.
        password_hash: see `token`.
    """
    return hmac.compare_digest(candidate.encode(), token(id_, password_hash).encode())
