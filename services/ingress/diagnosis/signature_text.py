"""A signature as somebody wrote it, and what is wrong about the way it is written."""

import base64
import binascii
import re
from typing import Literal

DIGEST_BYTES = 32
# Other lengths in bytes, by what has them.
_OTHERS = {16: "MD5", 20: "SHA-1", 28: "SHA-224", 48: "SHA-384", 64: "SHA-512"}
_PREFIX = re.compile(r"(?:(?:hmac-)?sha-?256|v1)[=,:]", re.IGNORECASE)


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
