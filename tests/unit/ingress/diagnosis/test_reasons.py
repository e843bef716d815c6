"""The usual mistakes of senders are explained."""

import base64
import codecs
import hashlib
import hmac
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.diagnosis.reasons import Secret, diagnose
from shared.ids import new_id
from shared.security.webhook_keys import encode_key, encode_standard

# The same in every process: the tests' names hold them.
SECRETS = tuple(
    Secret(new_id(), hashlib.sha256(state.encode()).digest(), state)
    for state in ("active", "retiring", "expired", "revoked")
)
ACTIVE, RETIRING, EXPIRED, REVOKED = SECRETS
KEY = encode_key(ACTIVE.raw)
ORDER = {"name": "Zoë", "url": "a/b", "items": [1, 2.5, {"b": None, "a": True}]}
BODY = json.dumps(ORDER).encode()
NOW = 1_700_000_000.0


def digest(key, body, algorithm="sha256"):
    return hmac.new(key if isinstance(key, bytes) else key.encode(), body, algorithm)


def sent(signature, key=KEY, body=BODY):
    headers = {"X-Api-Key": key, "X-WEBHOOK-Signature": signature}
    return diagnose(headers, body, SECRETS, NOW)


def said(found, *words):
    text = " ".join(found.findings)
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    ("secret", "code", "word"),
    [
        (ACTIVE, "", "is right"),
        (RETIRING, "", "switch to the new one"),
        (EXPIRED, "secret_expired", "has expired"),
        (REVOKED, "invalid_api_key", "was revoked"),
    ],
)
def test_a_right_signature_is_right_in_every_state_of_its_secret(secret, code, word):
    key = encode_key(secret.raw)
    found = sent(digest(key, BODY).hexdigest(), key)
    assert (found.code, found.secret, found.is_right) == (code, secret, True)
    said(found, word)


def test_white_space_around_a_header_is_ignored():
    assert sent(f" {digest(KEY, BODY).hexdigest()}\t", f"\t{KEY} ").code == ""


def test_upper_case_digits_are_accepted():
    assert sent(digest(KEY, BODY).hexdigest().upper()).code == ""


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda s: f"sha256={s}", "`sha256=`"),
        (lambda s: f"\r\n{s}", "white space"),
        (lambda s: f"{s}\n", "white space"),
        (lambda s: base64.b64encode(bytes.fromhex(s)).decode(), "in base64. It must be in hex"),
        (lambda s: base64.urlsafe_b64encode(bytes.fromhex(s)).decode(), "in base64"),
        (lambda s: s[:-2], "wrong length: 62 hexadecimal digits"),
        (lambda s: s[:-1], "wrong length: 63 hexadecimal digits"),
        (lambda s: s[:50], "wrong length: 25 bytes"),
        (lambda s: s + "00", "wrong length: 33 bytes"),
        (lambda _: digest(KEY, BODY, "sha1").hexdigest(), "which is what SHA-1 gives"),
        (lambda _: digest(KEY, BODY, "sha224").hexdigest(), "which is what SHA-224 gives"),
        (lambda _: digest(KEY, BODY, "sha512").hexdigest(), "which is what SHA-512 gives"),
        (lambda _: "no signature at all!", "neither hexadecimal nor base64"),
    ],
)
def test_the_encoding_of_a_wrong_signature_is_explained(wrong, word):
    found = sent(wrong(digest(KEY, BODY).hexdigest()))
    assert (found.code, found.is_right) == ("invalid_signature", False)
    assert found.expected == digest(KEY, BODY).hexdigest()
    said(found, word)


@pytest.mark.parametrize(
    ("written", "word"),
    [
        (lambda s: base64.b64encode(s.encode()).decode(), "the base64 of the hexadecimal text"),
        (lambda s: "-".join(s[i : i + 2] for i in range(0, 64, 2)).upper(), "`-` between"),
        (lambda s: ":".join(s[i : i + 2] for i in range(0, 64, 2)), "`:` between"),
        (lambda s: f"(stdin)= {s}", "`(stdin)= ` before it"),
        (lambda s: f"SHA2-256(stdin)= {s}", "`SHA2-256(stdin)= ` before it"),
        (lambda s: f'"{s}"', "in quotes"),
        (lambda s: f"b'{s}'", "in quotes"),
        (lambda s: f"0x{s}", "`0x` before it"),
        (lambda s: s.lstrip("0"), "63 hexadecimal digits"),
    ],
)
def test_a_right_digest_is_found_in_other_encodings(written, word):
    body = next(
        body
        for body in (f"{BODY!r}{number}".encode() for number in range(1_000))
        if re.match(r"0[1-9a-f]", digest(KEY, body).hexdigest())
    )
    found = sent(written(digest(KEY, body).hexdigest()), body=body)
    assert (found.code, found.secret) == ("invalid_signature", ACTIVE)
    said(found, word)
    assert "SHA-512" not in " ".join(found.findings)
    assert "fits none" not in " ".join(found.findings)


def test_bytes_of_one_digit_do_not_blame_the_secret():
    """By `%x` the zeros are missing inside: put before the text, they make another digest."""
    body = next(
        body
        for body in (f"{BODY!r}{number}".encode() for number in range(1_000))
        if sum(byte < 16 for byte in digest(KEY, body).digest()) == 3
    )
    text = "".join(f"{byte:x}" for byte in digest(KEY, body).digest())
    found = sent(text, body=body)
    assert (found.code, found.secret) == ("invalid_signature", ACTIVE)
    said(found, "61 hexadecimal digits", "the secret fits")
    assert "fits none" not in " ".join(found.findings)
    other = sent(text[:-1] + ("0" if text[-1] != "0" else "1"), body=body)
    assert (other.secret, "fits" in " ".join(other.findings)) == (None, False)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Type": "text/plain"}, ["Content-Type is `text/plain`."]),
        ({"Content-Encoding": "lz4"}, ["not compressed"]),
        ({"Content-Encoding": "utf-8"}, ["is no compression"]),
    ],
)
def test_a_refused_form_is_explained_with_its_faults(headers, words):
    signed = {"X-API-Key": KEY, "X-Webhook-Signature": digest(KEY, BODY).hexdigest()}
    found = diagnose(signed | headers, BODY, SECRETS, NOW)
    assert found.code == "unsupported_media_type"
    said(found, *words)


@pytest.mark.parametrize(
    ("signed", "word"),
    [
        (json.dumps(ORDER, separators=(",", ":")).encode(), "written compact"),
        (json.dumps(ORDER, sort_keys=True).encode(), "sorted keys"),
        (json.dumps(ORDER, ensure_ascii=False).encode(), "non-ASCII unescaped"),
        (json.dumps(ORDER, indent=2).encode(), "an indent of 2"),
        (
            json.dumps(ORDER, separators=(",", ":")).replace("/", r"\/").encode(),
            r"`/` as `\/`",
        ),
        (BODY + b"\n", "a line feed at its end, which was not sent"),
        (BODY + b"\r\n", "CR LF"),
        (codecs.BOM_UTF8 + BODY, "byte order mark"),
        (b"", "an empty body"),
        (base64.b64encode(BODY), "the base64 of the body"),
        (hashlib.sha256(BODY).hexdigest().encode(), "the SHA-256 of the body"),
    ],
)
def test_other_bytes_were_signed_than_were_sent(signed, word):
    found = sent(digest(KEY, signed).hexdigest())
    assert (found.code, found.secret) == ("invalid_signature", ACTIVE)
    said(found, word)


@pytest.mark.parametrize(
    ("hashed", "word"),
    [
        (BODY, "the SHA-256 of the body, without the secret"),
        (KEY.encode() + BODY, "of the secret and the body in a row"),
        (BODY + ACTIVE.raw, "of the secret and the body in a row"),
    ],
)
def test_a_digest_without_a_key_is_recognised(hashed, word):
    found = sent(hashlib.sha256(hashed).hexdigest())
    assert (found.code, found.secret) == ("invalid_signature", None)
    said(found, word, "Use HMAC-SHA256")


@pytest.mark.parametrize(
    ("body", "signed", "word"),
    [
        (BODY + b"\n", BODY, "without the line feed at its end, which was sent"),
        (codecs.BOM_UTF8 + BODY, BODY, "without the byte order mark"),
        (b'{"a":\r\n1}', b'{"a":\n1}', "line feeds changed"),
        (b'{"a":\n1}', b'{"a":\r\n1}', "line feeds changed"),
    ],
)
def test_more_was_sent_than_was_signed(body, signed, word):
    found = sent(digest(KEY, signed).hexdigest(), body=body)
    assert found.code == "invalid_signature"
    said(found, word)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (ACTIVE.raw, "32 bytes behind the secret"),
        (encode_standard(ACTIVE.raw), "`whsec_` form"),
        (KEY.removeprefix("whsk_"), "without its prefix"),
        (KEY + "\n", "white space after the secret"),
        (f'"{KEY}"', "in quotes"),
    ],
)
def test_another_form_of_the_secret_was_the_key(key, word):
    found = sent(digest(key, BODY).hexdigest())
    assert (found.code, found.secret) == ("invalid_signature", ACTIVE)
    said(found, word)


def test_two_mistakes_are_both_reported():
    signature = digest(ACTIVE.raw, json.dumps(ORDER, separators=(",", ":")).encode())
    found = sent(base64.b64encode(signature.digest()).decode())
    said(found, "in base64", "32 bytes", "re-serialised")


def test_it_was_signed_with_another_of_the_secrets():
    found = sent(digest(encode_key(RETIRING.raw), BODY).hexdigest())
    assert (found.code, found.secret) == ("invalid_signature", RETIRING)
    said(found, "by another", str(RETIRING.id), "retiring")


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (encode_standard(ACTIVE.raw), "`whsec_` form"),
        (f"{KEY}\n", "white space"),
        (f'"{KEY}"', "quotes"),
        (f"Bearer {KEY}", "Bearer"),
        (KEY.lower() if KEY.lower() != KEY else KEY.upper(), "capital and small"),
        (KEY.removeprefix("whsk_"), "without `whsk_`"),
        ("whsk_somebody-elses", "none of this account's secrets"),
    ],
)
def test_a_wrong_key(key, word):
    found = sent(digest(KEY, BODY).hexdigest(), key)
    assert found.code == "invalid_api_key"
    said(found, word)


def test_an_unexplained_signature_gets_the_next_step():
    found = sent("0" * 64)
    assert (found.code, found.secret) == ("invalid_signature", None)
    said(found, "fits none of your secrets", "sha256")


def test_missing_headers_are_named_with_those_sent_instead():
    found = diagnose({"X-Signature": "abc", "X-API-Key": KEY}, BODY, SECRETS, NOW)
    assert found.code == "missing_authentication"
    said(found, "X-Webhook-Signature", "`x-signature` is present")
    assert "X-API-Key" not in found.findings[0]


# --- Standard Webhooks


def standard(
    body=BODY, *, id_="msg_1", stamp=str(int(NOW)), signature=None, key=ACTIVE.raw, signed=None
):
    over = f"{id_}.{stamp}.".encode() + body if signed is None else signed
    made = "v1," + base64.b64encode(digest(key, over).digest()).decode()
    headers = {
        "Webhook-Id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": made if signature is None else signature(made),
    }
    return diagnose(headers, body, SECRETS, NOW)


def test_the_published_vector():
    raw = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = Secret(new_id(), raw, "active")
    found = diagnose(headers, b'{"test": 2432232314}', [secret], 1614265330.0)
    assert (found.scheme, found.code, found.secret) == ("standard_webhooks", "", secret)
    assert found.expected == headers["webhook-signature"]


@pytest.mark.parametrize(
    ("secret", "code"), [(ACTIVE, ""), (RETIRING, ""), (EXPIRED, "secret_expired")]
)
def test_a_right_standard_signature_by_each_secret(secret, code):
    found = standard(key=secret.raw)
    assert (found.code, found.secret, found.is_right) == (code, secret, True)


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"stamp": str(int(NOW) - 301)}, "invalid_timestamp", "301 s behind our clock"),
        ({"stamp": str(int(NOW) + 4_000)}, "invalid_timestamp", "4000 s ahead of our clock"),
        ({"stamp": str(int(NOW * 1000))}, "invalid_timestamp", "in milliseconds"),
        ({"stamp": "2026-11-24"}, "invalid_timestamp", "whole seconds"),
        ({"id_": "a.b"}, "invalid_signature", "no `.`"),
        ({"signed": BODY}, "invalid_signature", "You signed the body alone"),
        ({"signed": f"{int(NOW)}.".encode() + BODY}, "invalid_signature", "`timestamp.body`"),
        ({"key": encode_standard(ACTIVE.raw).encode()}, "invalid_signature", "string itself"),
        ({"key": KEY.encode()}, "invalid_signature", "the key of the other scheme"),
        ({"signature": lambda s: s[3:]}, "invalid_signature", "has no `v1,`"),
        ({"signature": lambda s: "v1a" + s[2:]}, "invalid_signature", "must be `v1`"),
        (
            {"signature": lambda s: "v1," + base64.b64decode(s[3:]).hex()},
            "invalid_signature",
            "in hexadecimal. It must be in base64",
        ),
        (
            {"signature": lambda s: "v1," + hexadecimal_in_base64(s[3:])},
            "invalid_signature",
            "encode the 32 bytes themselves",
        ),
        ({"signature": lambda _: "v1,AAAZ"}, "invalid_signature", "wrong length: 3 bytes"),
        (
            {"signed": f"msg_1.{int(NOW)}.".encode() + BODY + b"\n"},
            "invalid_signature",
            "a line feed at its end",
        ),
        ({"signed": b"something else"}, "invalid_signature", "fits none of your secrets"),
    ],
)
def test_mistakes_in_a_standard_signature(changes, code, word):
    found = standard(**changes)
    assert found.code == code
    said(found, word)


def hexadecimal_in_base64(signature):
    return base64.b64encode(base64.b64decode(signature).hex().encode()).decode()


def test_one_right_signature_among_several_is_enough():
    found = standard(signature=lambda right: f"v1,AAAA v9,x {right}")
    assert (found.code, found.is_right) == ("", True)


def test_missing_standard_headers_are_named():
    found = diagnose({"webhook-id": "msg_1"}, BODY, SECRETS, NOW)
    assert found.code == "missing_authentication"
    said(found, "webhook-timestamp and webhook-signature")


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "x-api-key",
                "x-webhook-signature",
                "webhook-id",
                "webhook-timestamp",
                "webhook-signature",
            ]
        ),
        st.text(max_size=80),
    ),
    st.binary(max_size=80),
)
def test_random_headers_are_refused_without_an_error(headers, body):
    found = diagnose(headers, body, SECRETS, NOW)
    assert not found.is_right
    assert found.code
    assert found.findings


def test_a_body_nested_too_deep_to_serialise_is_no_failure():
    for depth in (500, 900, 990, 5_000):
        assert sent("0" * 64, body=b"[" * depth + b"]" * depth).code == "invalid_signature"


def test_of_many_signatures_the_first_is_explained():
    wrong = base64.b64encode(digest(ACTIVE.raw, BODY).digest()).decode()
    found = standard(signature=lambda _: " ".join([f"v1,{wrong}"] * 1_000))
    assert found.findings == [text for text in found.findings if "the body alone" in text]


def test_half_of_a_surrogate_pair_is_no_failure():
    broken = dict.fromkeys(["webhook-id", "webhook-timestamp", "webhook-signature"], "\ud800")
    assert not diagnose(broken, BODY, SECRETS, NOW).is_right
    broken = dict.fromkeys(["x-api-key", "x-webhook-signature"], "\ud800")
    assert diagnose(broken, BODY, SECRETS, NOW).code
