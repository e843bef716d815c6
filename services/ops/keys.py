"""New keys and passwords, as lines for an env file."""

import base64
import secrets

from shared.crypto import KEY_BYTES
from shared.roles import OPERATOR, SERVICES


def generate() -> dict[str, str]:
    """Random values for everything in `docker-compose.yml` that must be secret."""
    return {
        "SECRET_ENCRYPTION_KEYS": _key(),
        "JWT_SIGNING_KEY": secrets.token_urlsafe(48),
        "RECEIPT_SIGNING_KEYS": _key(),
        # In hexadecimal, since they stand in URLs.
        "RABBITMQ_PASSWORD": secrets.token_hex(24),
        "POSTGRES_PASSWORD": secrets.token_hex(24),
    } | {f"{name.upper()}_PASSWORD": secrets.token_hex(24) for name in (*SERVICES, OPERATOR)}


def _key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
