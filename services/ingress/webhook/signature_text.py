"""A signature as somebody wrote it, and what is wrong about the way it is written.

What a 401 tells beside its sentence is known from the request alone, so that it says the same to a
stranger as to the holder of the secret.
"""

import base64
import binascii
import re
from typing import Literal

from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.platform import Platform

DIGEST_BYTES = 32
# Other lengths in bytes, by what has them.
_OTHERS = {16: "MD5", 20: "SHA-1", 28: "SHA-224", 48: "SHA-384", 64: "SHA-512"}
_MOST_CHARACTERS = 512  # of one that is looked at
_TEST = "`POST /api/v1/webhooks/test/`, signed in, says what differs."


def _cure(platform: Platform) -> str:
    if platform.gives_secret:
        return (
            f"Give us the secret that {platform.title} shows: "
            f"`PUT /api/v1/webhook/secret/{platform.name}/`. {_TEST}"
        )
    return (
        f"Paste `whsk_…` into the secret of the webhook in {platform.title}, and nothing else; the "
        f"account in the path is the `id` that a sign-in answers with. {_TEST}"
    )


CURES = {
    "api_key": "Sign the raw bytes of the body: hexadecimal HMAC-SHA256, keyed with the whole "
    f"secret, `whsk_…` or `whtk_…`. {_TEST}",
    "standard_webhooks": "Sign `webhook-id.webhook-timestamp.body`, with the bytes behind "
    "`whsec_…` or with your private key; the account in the path is the `id` that a sign-in "
    f"answers with. {_TEST}",
} | {platform.name: _cure(platform) for platform in PLATFORMS}
"""What to do about a wrong signature, by scheme."""
_PREFIX = re.compile(r"(?:(?:hmac-)?sha-?256|v1)[=,:]", re.IGNORECASE)


def why_wrong(scheme: str, header: bytes) -> list[str]:
    """What a signature that is not right shows by itself, and the cure.

    Args:
        scheme: by which it was judged.
        header: as it came; empty where there is none to look at.
    """
    findings: list[str] = []
    signature = header.decode("latin-1")
    if scheme == "standard_webhooks":
        listed = signature.split(" ")
        if header and not any(one.startswith(("v1,", "v1a,")) for one in listed):
            findings.append("No signature in webhook-signature has `v1,` or `v1a,` before it.")
        signature = next((one[3:] for one in listed if one.startswith("v1,")), "")
    if len(signature) > _MOST_CHARACTERS:
        findings.append(f"The signature has {len(signature):,} characters.")
    elif signature:
        read(signature, "hex" if scheme == "api_key" else "base64", findings)
    return [*findings, CURES[scheme]]


def read(signature: str, wanted: Literal["hex", "base64"], findings: list[str]) -> bytes | None:
    """The bytes of a signature, however it is written; None when it cannot be one.

    Args:
        signature: as it came.
        wanted: how it should be written.
        findings: what differs from that is added, in sentences.
    """
    text = signature.strip()
    if text != signature:
        findings.append("There is white space around the signature. Send it without.")
    prefix = _PREFIX.match(text)
    if prefix:
        findings.append(f"The signature has `{prefix[0]}` before it. Send it without.")
        text = text[prefix.end() :]
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        written, digest = "hex", bytes.fromhex(text)
    else:
        try:
            written, digest = "base64", from_base64(text)
        except (binascii.Error, ValueError):
            findings.append("The signature is neither hexadecimal nor base64.")
            return None
    if len(digest) != DIGEST_BYTES:
        other = _OTHERS.get(len(digest))
        why = f", which is what {other} gives" if other else ""
        findings.append(
            f"The signature has the wrong length: {len(digest)} bytes{why}. HMAC-SHA256 gives "
            f"{DIGEST_BYTES}: 64 hexadecimal digits, or 44 characters of base64."
        )
        return None
    if written != wanted:
        name = {"hex": "hexadecimal", "base64": "base64"}
        findings.append(f"The signature is in {name[written]}. It must be in {name[wanted]}.")
    elif wanted == "base64" and text != in_base64(digest):
        findings.append("The signature must be in standard base64: `+`, `/`, and padded by `=`.")
    return digest


def in_base64(digest: bytes) -> str:
    """Standard base64, padded (RFC 4648, 4)."""
    return base64.b64encode(digest).decode()


def from_base64(text: str) -> bytes:
    """Of either alphabet (RFC 4648, 4 and 5), padded or not."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
