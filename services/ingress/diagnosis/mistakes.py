"""Variants that senders sign by mistake: other bytes, or with another form of the secret.

Each comes with a sentence for the sender.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from shared.security.webhook_keys import encode_key, encode_standard

BOM = b"\xef\xbb\xbf"
_LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":")},
    "with spaces after `,` and `:`": {"separators": (", ", ": ")},
    "with an indent of 2": {"indent": 2},
    "with an indent of 4": {"indent": 4},
}


def of_body(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield other bytes that may have been signed instead of `body`, each after its sentence."""
    if not body:
        return
    yield "You signed an empty body: sign the bytes that you send.", b""
    stripped = body.rstrip(b"\r\n")
    if stripped != body:
        yield "You signed the body without the line feed at its end, which was sent.", stripped
    for end, name in ((b"\n", "a line feed"), (b"\r\n", "a line feed (CR LF)")):
        yield f"You signed the body with {name} at its end, which was not sent.", body + end
    if body.startswith(BOM):
        text = "You signed the body without the byte order mark (BOM) at its start, which was sent."
        yield text, body.removeprefix(BOM)
    else:
        yield "You signed the body with a byte order mark (BOM) at its start.", BOM + body
    unix = body.replace(b"\r\n", b"\n")
    for changed in {unix, unix.replace(b"\n", b"\r\n")} - {body}:
        yield "Between signing and sending the line feeds changed (LF to CR LF, or back).", changed
    yield "You signed the base64 of the body.", base64.b64encode(body)
    yield "You signed the SHA-256 of the body, not the body.", _sha256(body)
    yield (
        "You signed the SHA-256 of the body, not the body.",
        hashlib.sha256(body).hexdigest().encode(),
    )
    yield from _serialised(body)


def without_hmac(raw: bytes, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield digests that are no HMAC, each after its sentence."""
    how = "Use HMAC-SHA256, keyed with the secret, as every language's library has it."
    yield f"The signature is the SHA-256 of the body, without the secret. {how}", _sha256(body)
    for text in (encode_key(raw).encode(), encode_standard(raw).encode(), raw):
        for joined in (text + body, body + text):
            why = f"The signature is the SHA-256 of the secret and the body in a row. {how}"
            yield why, _sha256(joined)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def of_key(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield keys that one secret may have been used as, each after its sentence."""
    key, standard = encode_key(raw), encode_standard(raw)
    yield "", key.encode()
    yield (
        "You signed with the 32 bytes behind the secret. That is the key of Standard Webhooks; "
        "here it is the whole `whsk_` string.",
        raw,
    )
    yield (
        "You signed with the `whsec_` form. Here it is the whole `whsk_` string.",
        standard.encode(),
    )
    for text in (key, standard):
        without = text.partition("_")[2]
        yield "You signed with the secret without its prefix. Keep the prefix.", without.encode()
    for end in ("\n", "\r\n", " "):
        text = "You signed with white space after the secret, such as the line feed of a file."
        yield text, (key + end).encode()
    yield "You signed with the secret in quotes.", f'"{key}"'.encode()


def of_standard_key(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Do the same for Standard Webhooks, whose key is the 32 bytes."""
    key, standard = encode_key(raw), encode_standard(raw)
    yield "", raw
    decode = "Decode the base64 after `whsec_`: its bytes are the key. A library does that for you."
    yield f"You signed with the `whsec_` string itself. {decode}", standard.encode()
    yield f"You signed with the base64 text. {decode}", standard.removeprefix("whsec_").encode()
    yield f"You signed with the `whsk_` string, the key of the other scheme. {decode}", key.encode()


def of_head(id_: str, stamp: str) -> Iterator[tuple[str, bytes]]:
    """Yield what may be signed before the body in place of `id.timestamp.`, after its sentence."""
    heads = {
        "the body alone": "",
        "`timestamp.body`": f"{stamp}.",
        "`id.body`": f"{id_}.",
        "`timestamp.id.body`": f"{stamp}.{id_}.",
        "the three without dots between": f"{id_}{stamp}",
    }
    for what, head in heads.items():
        yield (
            f"You signed {what}. It must be `webhook-id.webhook-timestamp.body`, of the very id "
            "and timestamp in the headers.",
            head.encode(),
        )


def _serialised(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the same JSON in the layouts of other libraries."""
    try:
        ways = list(_written(json.loads(body.removeprefix(BOM))))
    except (ValueError, RecursionError):
        return
    seen = {body}
    for how, text in ways:
        try:
            changed = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            continue
        if changed not in seen:
            seen.add(changed)
            yield (
                "You signed a re-serialised body, and not the bytes that you sent: the signature "
                f"fits the same JSON written {how}. Serialise once, sign those bytes, send those "
                "bytes.",
                changed,
            )


def _written(value: object) -> Iterator[tuple[str, str]]:
    """Yield a value as JSON in every usual layout, after the layout's name."""
    for layout, options in _LAYOUTS.items():
        for sort_keys, sorted_ in ((False, ""), (True, ", with sorted keys")):
            for ascii_, letters in ((True, r"non-ASCII as `\u…`"), (False, "non-ASCII unescaped")):
                text = json.dumps(value, sort_keys=sort_keys, ensure_ascii=ascii_, **options)
                how = f"{layout}{sorted_}, {letters}"
                yield how, text
                # As PHP's json_encode does.
                yield rf"{how}, `/` as `\/`", text.replace("/", r"\/")
