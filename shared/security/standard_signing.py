"""Signing as a sender does, by Standard Webhooks (standardwebhooks.com, specification 1.0.0)."""

import base64
import hmac

from shared.security.webhook_keys import STANDARD_PREFIX


def headers(secret: str, id_: str, now: float, body: bytes) -> dict[str, str]:
    """The headers of a signed request.

    Args:
        secret: in the form `whsec_...`.
        id_: what makes it the same request when it is sent again; visible ASCII without a dot.
        now: seconds since 1970, when it is sent.
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
