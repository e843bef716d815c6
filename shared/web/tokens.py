"""The token that stands for a browser, and what is derived from it."""

import hashlib
import hmac
import secrets

BYTES = 32


def new_token() -> str:
    """What stands for a browser in its cookie."""
    return secrets.token_urlsafe(BYTES)


def hashed(token: str) -> bytes:
    """What is kept of a token on the server: by it a cookie is found, and none can be made."""
    return hashlib.sha256(token.encode()).digest()


def form_token(token: str) -> str:
    """What every form of this browser must carry (OWASP, "Cross-Site Request Forgery")."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def is_form_token(given: str, token: str) -> bool:
    """Whether a form came from a page of ours."""
    return hmac.compare_digest(given.encode(), form_token(token).encode())
