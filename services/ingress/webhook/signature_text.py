"""Reads a signature in any usual encoding, and explains what is wrong with the encoding.

The findings in a 401 are derived from the request alone, so that a stranger gets the same as the
holder of the secret.
"""

import base64
import binascii
import re
from typing import Literal

from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.platform import Platform

DIGEST_BYTES = 32
# Other digests, by their length in bytes.
_OTHERS = {16: "MD5", 20: "SHA-1", 28: "SHA-224", 48: "SHA-384", 64: "SHA-512"}
_MOST_CHARACTERS = 512  # of a signature that is inspected
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
"""The remedy for a wrong signature, by scheme."""
_PREFIX = re.compile(
    r"(?:(?:hmac-)?sha-?256|v1)[=,:]|[\w-]*\([^()]{0,100}\)= *|0x(?=[0-9a-f]{64}\Z)", re.IGNORECASE
)
"""Of GitHub and others; of `openssl dgst`, such as `SHA2-256(stdin)= `; of number literals."""
_QUOTED = re.compile(r"b?([\"'])(.+)\1")
_PAIR = "[0-9a-fA-F]{2}"
_SEPARATED = re.compile(f"{_PAIR}([-: ]){_PAIR}(?:\\1{_PAIR}){{{DIGEST_BYTES - 2}}}")
_DIGITS = re.compile(rb"[0-9a-fA-F]{57,64}")
"""Without zeros there are fewer than 64. 56 are of SHA-224."""


def why_wrong(scheme: str, header: bytes) -> list[str]:
    """Return what the text of a wrong signature shows, and then the remedy of its scheme.

    Args:
        scheme: a `rules.Scheme`.
        header: the raw header; empty if there is none.
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
    """Return the digest of a signature in any encoding; None if the text holds none.

    Args:
        signature: the header's value.
        wanted: the encoding of the scheme.
        findings: takes a sentence for each difference.
    """
    text = signature.strip()
    if text != signature:
        findings.append("There is white space around the signature. Send it without.")
    if quoted := _QUOTED.fullmatch(text):
        findings.append("The signature is in quotes. Send it without them.")
        text = quoted[2]
    if prefix := _PREFIX.match(text):
        findings.append(f"The signature has `{prefix[0]}` before it. Send it without.")
        text = text[prefix.end() :]
    if separated := _SEPARATED.fullmatch(text):
        mark = separated[1]
        findings.append(f"The signature has `{mark}` between its digits. Send it without.")
        text = text.replace(mark, "")
    if _DIGITS.fullmatch(text.encode()) and len(text) < 2 * DIGEST_BYTES:
        findings.append(
            f"The signature has the wrong length: {len(text)} hexadecimal digits of "
            f"{2 * DIGEST_BYTES}. Were zeros left out? Write each byte with two digits (`%02x`)."
        )
        return None  # where the zeros were is not known
    if re.fullmatch(f"(?:{_PAIR})+", text):
        written, digest = "hex", bytes.fromhex(text)
    else:
        try:
            written, digest = "base64", from_base64(text)
        except (binascii.Error, ValueError):
            findings.append("The signature is neither hexadecimal nor base64.")
            return None
    if written == "base64" and len(digest) == 2 * DIGEST_BYTES and _DIGITS.fullmatch(digest):
        how = {
            "hex": "send the hexadecimal digits themselves.",
            "base64": f"encode the {DIGEST_BYTES} bytes themselves.",
        }
        findings.append(
            f"The signature is the base64 of the hexadecimal text of the digest: {how[wanted]}"
        )
        return bytes.fromhex(digest.decode())
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
    """Return standard base64, padded (RFC 4648, 4)."""
    return base64.b64encode(digest).decode()


def from_base64(text: str) -> bytes:
    """Decode base64 of either alphabet (RFC 4648, 4 and 5), padded or not.

    Raises:
        ValueError: it is no base64.
    """
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
