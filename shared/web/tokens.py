"""Tokens of browsers, and the form tokens derived from them."""

import hashlib
import hmac
import secrets

BYTES = 32


def new_token() -> str:
    """Return a new random token for a cookie."""
    return secrets.token_urlsafe(BYTES)


def hashed(token: str) -> bytes:
    """Return the hash of a token that the server stores, from which the token cannot be derived."""
    return hashlib.sha256(token.encode()).digest()


def form_token(token: str) -> str:
    """Return the token of this browser's forms (OWASP, "Cross-Site Request Forgery")."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def is_form_token(candidate: str, token: str) -> bool:
    """Return whether a form's token belongs to the browser's token, in constant time."""
    return hmac.compare_digest(candidate.encode(), form_token(token).encode())
