"""Signs requests as a sender does: by X-API-Key, or by Standard Webhooks 1.0.0."""

import base64
import hmac

from shared.security.webhook_keys import STANDARD_PREFIX


def api_key_headers(secret: str, body: bytes) -> dict[str, str]:
    """Return the headers of a request that is signed by X-API-Key.

    Args:
        secret: in the form `whsk_...`.
        body: the raw body.
    """
    signature = hmac.digest(secret.encode(), body, "sha256").hex()
    return {"X-API-Key": secret, "X-Webhook-Signature": signature}


def standard_headers(secret: str, id_: str, now: float, body: bytes) -> dict[str, str]:
    """Return the headers of a request that is signed by Standard Webhooks (standardwebhooks.com).

    Args:
        secret: in the form `whsec_...`.
        id_: the message id, equal for retries; visible ASCII without a dot.
        now: the time of sending, in seconds since 1970.
        body: the raw body.
    """
    stamp = str(int(now))
    key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX))
    signed = b".".join((id_.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }
