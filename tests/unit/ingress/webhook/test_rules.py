"""The webhook and `POST /webhooks/test/` apply the same rules."""

import asyncio
import base64
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain
from types import SimpleNamespace
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from falcon import testing
from falcon.asgi import Request, Response
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.public_key import MAX_PUBLIC_KEYS
from services.ingress.credentials.secret import LIVE
from services.ingress.diagnosis import judging
from services.ingress.diagnosis.api import _delivery
from services.ingress.diagnosis.reasons import Secret, diagnose
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.known import PLATFORMS
from services.ingress.request_log.attempt import Attempt
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.shops.endpoint import PlatformWebhook
from services.ingress.webhook import authentication, rules, signature_text
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.authentication import ApiKeyScheme, StandardScheme
from services.ingress.webhook.endpoint import OrderWebhook, Parts
from services.ingress.webhook.known_keys import KnownKeys
from services.ingress.webhook.refusals import Refusals
from services.ingress.webhook.standard_webhooks import MAX_PUBLIC_SIGNATURES
from shared.ids import new_id
from shared.intake import bodies
from shared.security.webhook_keys import GIVEN_BY, encode_key, key_hash, seal
from shared.token_buckets import TokenBuckets
from tests.integration.ingress.conftest import ORDER

NOW = 1_700_000_000
ACCOUNT = new_id()
STATES = ("revoked", "expired", "over", "retiring", "active")
"""Of the account's secrets, from the oldest; `over` has expired and is not marked so yet."""
BODIES = (
    json.dumps(ORDER).encode(),
    json.dumps(ORDER, indent=1).encode(),
    b"{}",
    b"\xff",
    b'{"type":"order.cancelled"}',
)
NOBODYS = bytes(32)
_at = datetime.fromtimestamp(NOW, UTC)


def rows():
    for state in STATES:
        raw = state.encode().ljust(32, b".")
        id_ = new_id()
        is_over = state in ("expired", "over")
        yield SimpleNamespace(
            raw=raw,
            key_hash=key_hash(encode_key(raw).encode()),
            id=id_,
            account_id=ACCOUNT,
            sealed=seal(raw, id_),
            replaced_at=None,
            platform="",
            is_synthetic=False,
            is_test=False,
            state="active" if state == "over" else state,
            expires_at=_at + timedelta(days=-1 if is_over else 1),
            change=1,
        )


ROWS = tuple(rows())


def made_by(platform):
    """As `rows`, for secrets that a platform made."""
    for row in rows():
        raw = f"{platform} {row.state} {row.expires_at < _at}".encode()
        made = {"raw": raw, "key_hash": key_hash(raw), "sealed": seal(raw, row.id)}
        yield SimpleNamespace(**vars(row) | made | {"platform": platform})


GIVEN_ROWS = {name: tuple(made_by(name)) for name in GIVEN_BY}
PRIVATES = {
    state: Ed25519PrivateKey.from_private_bytes(state.encode().ljust(32, b"."))
    for state in ("active", "revoked", "nobodys")
}
KEY_ROWS = tuple(
    SimpleNamespace(
        id=new_id(),
        account_id=ACCOUNT,
        public_key=PRIVATES[state].public_key().public_bytes_raw(),
        state=state,
        change=1,
        is_synthetic=False,
    )
    for state in ("revoked", "active")
)
PUBLIC_KEYS = tuple(Secret(row.id, row.public_key, row.state, is_public=True) for row in KEY_ROWS)


def held(found):
    return tuple(
        Secret(
            row.id,
            row.raw,
            "expired" if row.expires_at <= _at and row.state in LIVE else row.state,
        )
        for row in reversed(found)
    )


SECRETS = held(ROWS)
GIVEN = {name: held(found) for name, found in GIVEN_ROWS.items()}


class Log:
    """Keeps the outcome of the last request."""

    code, note = "", None

    def add(self, _, attempt, *__):
        self.code, self.note = attempt.code, attempt.note


class Safe:
    """Accepts every message without storing it."""

    async def accept(self, _):
        return


class Nowhere(SecretCache):
    """A cache whose look-ups find nothing."""

    async def find(self, _):
        return None

    async def look_again(self, _, __=""):
        return True


def webhook(scheme, *, is_standard_only, log, platform=None):
    policies = Policies()
    policies.put(
        [
            SimpleNamespace(
                account_id=ACCOUNT,
                rate_per_second=None,
                change=1,
                blocked_at=None,
                standard_webhooks_only=is_standard_only,
                allowed_networks=[],
            )
        ]
    )
    threads = ThreadPoolExecutor(1)
    cache = Nowhere(threads, threads, policies)
    cache.clock = SimpleNamespace(now=lambda: NOW, stamp=lambda: NOW)
    for row in (*ROWS, *chain.from_iterable(GIVEN_ROWS.values())):
        cache._take(row)
    cache._take_keys(KEY_ROWS)
    refusals = Refusals(TokenBuckets(1e9, 1e9))
    admission = Admission(
        Safe(), refusals, policies, TokenBuckets(1e9, 1e9), 10**9, "http://x/", cache.clock
    )
    parts = Parts(
        admission=admission,
        acceptor=Safe(),
        metrics=SimpleNamespace(webhook=lambda *_: None),
        request_log=log,
        clock=cache.clock,
    )
    if platform is not None:
        return PlatformWebhook(platform, PlatformScheme(platform, cache, refusals, 1 << 20), parts)
    return OrderWebhook(scheme(cache, refusals, 1 << 20), parts, KnownKeys())


def answered(headers, body, *, is_standard_only, platform=None):
    """The webhook's code, and for a platform its note."""
    log = Log()
    is_standard = any(name.startswith(b"webhook-") for name, _ in headers)
    scheme = StandardScheme if is_standard else ApiKeyScheme
    endpoint = webhook(scheme, is_standard_only=is_standard_only, log=log, platform=platform)
    scope = testing.create_scope("/", "POST", content_length=len(body))
    # As the server reads them: white space around a value is none of it (RFC 9110, 5.5).
    stripped = [(name, value.strip(b" \t")) for name, value in headers]
    scope["headers"] = [*stripped, (b"content-length", b"%d" % len(body))]

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    response = Response()
    asyncio.run(endpoint.on_post(Request(scope, receive), response, str(ACCOUNT)))
    if not log.code:  # a ping, which is in no log
        is_taken = str(response.status).startswith("200")
        return ("accepted", "ping") if is_taken else ("unsupported_media_type", None)
    return (log.code, log.note) if platform is not None else log.code


def told(headers, body, *, is_standard_only):
    """The code that the test endpoint reports."""
    sent = {name.decode("latin-1"): value.decode() for name, value in headers}
    found = diagnose(
        sent,
        body,
        SECRETS,
        NOW,
        public_keys=PUBLIC_KEYS,
        given_secrets=GIVEN,
        is_standard_only=is_standard_only,
    )
    if found.platform is not None:
        verdict, note, _ = _delivery(found, sent, body, ACCOUNT, _at)
        code = found.code or ("accepted" if verdict.is_accepted else "invalid_body")
        return code, note if code == "accepted" else None
    if found.code:
        return found.code
    try:
        bodies.read(body, ACCOUNT, time.time(), None)
    except bodies.BodyError:
        return "invalid_body"
    return "accepted"


RAWS = st.sampled_from([ROWS[-1].raw] * 4 + [row.raw for row in ROWS] + [NOBODYS])
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
FORMS = st.fixed_dictionaries(
    {},
    optional={
        b"content-type": st.sampled_from(
            [b"", b"application/json", b"a/b+json ; c", b"text/plain"]
        ),
        b"content-encoding": st.sampled_from([b"", b"identity", b"Identity", b"gzip"]),
    },
)


@st.composite
def by_key(draw, body):
    raw = draw(RAWS)
    key = encode_key(raw).encode()
    signed = draw(st.sampled_from([body, body, body, body + b"\n"]))
    right = hmac.digest(key, signed, "sha256").hex().encode()
    headers = {
        b"x-api-key": draw(st.sampled_from([key] * 6 + [key + b"=", b""])),
        b"x-webhook-signature": draw(
            st.sampled_from([right] * 6 + [right.upper(), right[:-1], b""])
        ),
    }
    if draw(st.booleans()):
        headers[b"idempotency-key"] = draw(TEXT | st.sampled_from([b"", b"a b", b"x" * 256]))
    return headers


@st.composite
def by_standard(draw, body):
    raw = draw(RAWS)
    id_ = draw(st.sampled_from([b"msg_1", b"msg_1", b"a.b", b"", b"x" * 256]) | TEXT)
    seconds = NOW + draw(st.sampled_from([0, 300, -300, 301, -301]))
    stamp = draw(st.sampled_from(["{}", "{}", "{:012}", "{:013}", "{:020}", "+{}", "{}000", ""]))
    stamp = stamp.format(seconds).encode()
    signed = b"%b.%b.%b" % (id_, stamp, body)
    right = base64.b64encode(hmac.digest(raw, signed, "sha256"))
    public = base64.b64encode(draw(st.sampled_from(list(PRIVATES.values()))).sign(signed))
    entry = st.sampled_from(
        [
            *(b"v1," + right, b"v1,AAAA", b"v2," + right, b"", b"v1a," + right),
            *(b"v1a," + public, b"v1a," + public, b"v1," + public, b"v1a," + public[:-1]),
        ]
    )
    joined = draw(st.sampled_from([b" ", b" ", b"\t", b","]))
    return {
        b"webhook-id": id_,
        b"webhook-timestamp": stamp,
        b"webhook-signature": joined.join(draw(st.lists(entry, min_size=1, max_size=18))),
    }


@st.composite
def requests(draw):
    body = draw(st.sampled_from(BODIES))
    headers = draw(by_key(body) | by_standard(body)) | draw(FORMS)
    for name in draw(st.sampled_from([[]] * 8 + [[name] for name in sorted(headers)])):
        del headers[name]
    return list(headers.items()), body


@given(requests(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_test_endpoint_reports_the_webhooks_answer(request_, is_standard_only):
    headers, body = request_
    assert told(headers, body, is_standard_only=is_standard_only) == answered(
        headers, body, is_standard_only=is_standard_only
    )


SHOP_ORDER = {
    "id": 7,
    "number": "7",
    "status": "processing",
    "email": "zoe@shop.example",
    "billing": {"first_name": "Zoë", "email": "zoe@shop.example"},
    "line_items": [{"name": "Kettle", "quantity": 2}],
}
SHOP_BODIES = (
    json.dumps(SHOP_ORDER).encode(),
    json.dumps(SHOP_ORDER | {"email": None, "billing": {}}).encode(),
    json.dumps(SHOP_ORDER | {"line_items": [{"name": "\ud800", "quantity": 1}]}).encode(),
    b"{}",
    b"\xff",
    b"webhook_id=12",
)


@st.composite
def deliveries(draw):
    platform, body = draw(st.sampled_from(PLATFORMS)), draw(st.sampled_from(SHOP_BODIES))
    theirs = [row.raw for row in GIVEN_ROWS.get(platform.name, ROWS)]
    raw = draw(st.sampled_from([theirs[-1]] * 4 + [*theirs, ROWS[-1].raw, NOBODYS]))
    key = draw(st.sampled_from(list(rules.platform_keys(raw, platform))))
    right = platforms.sign(key, draw(st.sampled_from([body, body, body, body + b"\n"])))
    topics = [*platform.topics] * 3 + ["products/update", ""]
    headers = {
        platform.signature: draw(st.sampled_from([right] * 6 + [right[:-1], b"", b"\xc3\xa9"])),
        platform.topic: draw(st.sampled_from(topics)).encode(),
        platform.shop: draw(st.sampled_from([b"kettles.myshopify.com", b""])),
        platform.delivery: draw(st.sampled_from([b"d-1", b"", b"two words"])),
    }
    if platform.test is not None and draw(st.booleans()):
        headers[platform.test] = draw(st.sampled_from([b"true", b"false"]))
    small = {name.lower().encode(): value for name, value in headers.items()} | draw(SHOP_FORMS)
    for name in draw(st.sampled_from([[]] * 8 + [[name] for name in sorted(small)])):
        del small[name]
    assume(rules.platform_of(small) is platform)
    return platform, list(small.items()), body


SHOP_FORMS = st.fixed_dictionaries(
    {},
    optional={
        b"content-type": st.sampled_from(
            [b"", b"application/json", b"text/plain", b"application/x-www-form-urlencoded"]
        ),
        b"content-encoding": st.sampled_from([b"identity", b"gzip"]),
        b"idempotency-key": st.just(b"two words"),
    },
)


@given(deliveries(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_test_endpoint_reports_the_webhooks_answer_to_a_shops_delivery(request_, is_standard_only):
    platform, headers, body = request_
    assert told(headers, body, is_standard_only=is_standard_only) == answered(
        headers, body, is_standard_only=is_standard_only, platform=platform
    )


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_a_shops_delivery_is_judged_by_its_own_scheme(platform):
    body = SHOP_BODIES[0]
    raw = GIVEN_ROWS.get(platform.name, ROWS)[-1].raw
    for key in rules.platform_keys(raw, platform):
        headers = {
            platform.signature: platforms.sign(key, body),
            platform.topic: next(iter(platform.topics)).encode(),
            platform.shop: b"kettles.example",
        }
        small = [(name.lower().encode(), value) for name, value in headers.items()]
        assert told(small, body, is_standard_only=False) == ("accepted", None)
        assert answered(small, body, is_standard_only=False, platform=platform) == (
            "accepted",
            None,
        )
        found = diagnose(
            {name: value.decode() for name, value in headers.items()},
            body + b"\n",
            SECRETS,
            NOW,
            given_secrets=GIVEN,
        )
        assert (found.scheme, found.code) == (platform.name, "invalid_signature")
        assert found.secret is not None
        assert found.expected


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_white_space_around_a_topic_is_ignored(platform):
    body, raw = SHOP_BODIES[0], GIVEN_ROWS.get(platform.name, ROWS)[-1].raw
    headers = {
        platform.signature: platforms.sign(rules.platform_keys(raw, platform)[0], body),
        platform.topic: b" %b\t" % next(iter(platform.topics)).encode(),
        platform.shop: b"kettles.example",
    }
    small = [(name.lower().encode(), value) for name, value in headers.items()]
    assert told(small, body, is_standard_only=False) == ("accepted", None)
    assert answered(small, body, is_standard_only=False, platform=platform) == ("accepted", None)


def test_every_platform_is_a_scheme():
    assert {platform.name for platform in PLATFORMS} <= {*get_args(rules.Scheme)}


ACTIVE = ROWS[-1].raw
KEY = encode_key(ACTIVE).encode()
BODY = BODIES[0]
SIGNATURE = hmac.digest(KEY, BODY, "sha256").hex().encode()


def keyed(**more):
    return {b"x-api-key": KEY, b"x-webhook-signature": SIGNATURE} | {
        name.replace("_", "-").encode(): value for name, value in more.items()
    }


def standard(id_=b"msg_1", stamp=b"%d" % NOW, write=b"v1,%b"):
    signed = b"%b.%b.%b" % (id_, stamp, BODY)
    right = base64.b64encode(hmac.digest(ACTIVE, signed, "sha256"))
    return {
        b"webhook-id": id_,
        b"webhook-timestamp": stamp,
        b"webhook-signature": write % right,
    }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (keyed(), "accepted"),
        (keyed(content_type=b""), "accepted"),
        (keyed(content_encoding=b""), "accepted"),
        (keyed(content_encoding=b"gzip"), "unsupported_media_type"),
        (keyed(idempotency_key=b"a b"), "invalid_idempotency_key"),
        (standard(), "accepted"),
        (standard(stamp=b"%013d" % NOW), "invalid_timestamp"),
        (standard(id_=b"a.b", stamp=b"1"), "invalid_signature"),
        (standard(write=b"v1,AAAA" + b" " * 16 + b"v1,%b"), "invalid_signature"),
        (standard(write=b"v1,AAAA\tv1,%b"), "invalid_signature"),
    ],
)
def test_edge_cases_get_the_same_answer_from_both(headers, code):
    request_ = (list(headers.items()), BODY)
    assert told(*request_, is_standard_only=False) == code
    assert answered(*request_, is_standard_only=False) == code


def test_an_account_that_takes_standard_webhooks_only():
    request_ = (list(keyed().items()), BODY)
    assert told(*request_, is_standard_only=True) == "scheme_not_allowed"
    assert answered(*request_, is_standard_only=True) == "scheme_not_allowed"


def by_private(private, key="v1a", body=BODY):
    signed = b"msg_1.%d.%b" % (NOW, body)
    return {
        b"webhook-id": b"msg_1",
        b"webhook-timestamp": b"%d" % NOW,
        b"webhook-signature": f"{key},".encode() + base64.b64encode(private.sign(signed)),
    }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (by_private(PRIVATES["active"]), "accepted"),
        (by_private(PRIVATES["revoked"]), "invalid_signature"),
        (by_private(PRIVATES["nobodys"]), "invalid_signature"),
        (by_private(PRIVATES["active"], "v1"), "invalid_signature"),
        (by_private(PRIVATES["active"], body=b"{}"), "invalid_signature"),
    ],
)
def test_a_signature_by_a_public_key(headers, code):
    for is_standard_only in (False, True):
        request_ = (list(headers.items()), BODY)
        assert told(*request_, is_standard_only=is_standard_only) == code
        assert answered(*request_, is_standard_only=is_standard_only) == code


@pytest.mark.parametrize("keys", [0, 1, 2, 3])
@pytest.mark.parametrize("signatures", [1, 2, 16])
def test_a_wrong_signature_costs_as_much_whatever_keys_an_account_has(
    monkeypatch, keys, signatures
):
    tried = []
    monkeypatch.setattr(
        authentication.standard_webhooks,
        "verifies",
        lambda _, __, given: tried.extend(given) or False,
    )
    threads = ThreadPoolExecutor(1)
    cache = Nowhere(threads, threads, Policies())
    cache._take_keys(SimpleNamespace(**vars(KEY_ROWS[1]) | {"id": new_id()}) for _ in range(keys))
    scheme = StandardScheme(cache, Refusals(TokenBuckets(1e9, 1e9)), 1 << 20)
    attempt = Attempt(time.time())
    wrong = by_private(PRIVATES["nobodys"])[b"webhook-signature"]
    attempt.signature = b" ".join([wrong] * signatures)
    assert scheme._match(ACCOUNT, b"signed", attempt) is None
    assert len(tried) == MAX_PUBLIC_KEYS * min(signatures, MAX_PUBLIC_SIGNATURES)


def test_a_signature_by_a_secret_verifies_no_public_key(monkeypatch):
    monkeypatch.setattr(authentication.standard_webhooks, "verifies", None)
    request_ = (list(standard().items()), BODY)
    assert answered(*request_, is_standard_only=False) == "accepted"


@pytest.mark.parametrize(
    ("scheme", "header", "fault"),
    [
        ("standard_webhooks", "v1," + "A" * 43 + "=", ""),
        ("standard_webhooks", "v1a," + "A" * 86 + "==", ""),
        ("standard_webhooks", "v2,AAAA", "has `v1,` or `v1a,` before it"),
        ("standard_webhooks", "A" * 43 + "=", "has `v1,` or `v1a,` before it"),
        ("standard_webhooks", "v2,AAAA v1," + "0" * 64, "It must be in base64"),
        ("woocommerce", "0" * 64, "It must be in base64"),
        ("shopify", "sha256=" + "A" * 43 + "=", "`sha256=` before it"),
        ("api_key", "0" * 64, ""),
        ("api_key", "\xff" * 64, "neither hexadecimal nor base64"),
        ("api_key", "v1," + "0" * 64, "`v1,` before it"),
        ("api_key", "MDBhYWZm" * 10 + "MDBhYQ==", "the base64 of the hexadecimal text"),
        ("shopify", "MDBhYWZm" * 10 + "MDBhYQ==", "encode the 32 bytes themselves"),
        ("api_key", "a" * 63, "63 hexadecimal digits"),
        ("api_key", "a" * 56, "28 bytes, which is what SHA-224 gives"),
    ],
)
def test_a_wrong_signature_gets_the_faults_of_its_text_and_the_remedy_of_its_scheme(
    scheme, header, fault
):
    *faults, cure = rules.invalid_signature(scheme, header.encode("latin-1")).faults
    assert (fault in " ".join(faults), bool(faults)) == (True, bool(fault))
    assert cure == signature_text.CURES[scheme]
    assert list(rules.invalid_signature(scheme, b"").faults) == [cure]


@pytest.mark.parametrize(
    ("coding", "body", "fault"),
    [
        ({}, b"", "The body is empty."),
        ({"Content-Encoding": "gzip"}, b"{}", "The body is compressed (Content-Encoding: gzip)."),
        ({"Content-Encoding": "UTF-8"}, b"{}", "Content-Encoding is `UTF-8`, which is no compress"),
    ],
)
@pytest.mark.parametrize("scheme", get_args(rules.Scheme))
def test_an_empty_or_encoded_body_is_a_fault_of_a_wrong_signature(scheme, coding, body, fault):
    secret = held(ROWS)[0]
    signed = {
        "api_key": {"X-API-Key": encode_key(secret.raw), "X-Webhook-Signature": "0" * 64},
        "standard_webhooks": {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(NOW),
            "webhook-signature": f"v1,{'A' * 43}=",
        },
    } | {platform.name: dict.fromkeys(platform.required, "A" * 44) for platform in PLATFORMS}
    headers = [(n.lower().encode(), v.encode()) for n, v in (signed[scheme] | coding).items()]
    refusal = judging.judge(headers, body, [secret], NOW, given={scheme: [secret]}).refusal
    assert refusal.code == "invalid_signature"
    assert refusal.faults[0].startswith(fault)


@pytest.mark.parametrize(
    ("stamp", "fault"),
    [
        (b"%d" % (NOW * 1_000), "in milliseconds"),
        (b"%d.25" % NOW, "whole seconds since 1970"),
        (b"2026-11-24T10:00:00Z", "whole seconds since 1970"),
        (b"%013d" % NOW, "12 digits at most"),
        (b"%d" % (NOW - 301), "301 s behind our clock"),
        (b"\xff", "whole seconds since 1970"),
    ],
)
def test_a_refused_timestamp_gets_a_fault(stamp, fault):
    """Only the test endpoint had it; a sender in milliseconds was told to set the clock."""
    signed = SimpleNamespace(timestamp=stamp)
    with pytest.raises(rules.Refusal) as refused:
        rules.check_time(signed, NOW)
    (found,) = refused.value.faults
    assert fault in found


@pytest.mark.parametrize(
    ("content_type", "encoding", "sentence", "faults"),
    [
        (None, "gzip", rules.NOT_PLAIN, []),
        (None, "br, gzip", rules.NOT_PLAIN, []),
        (None, "gzip, UTF-8", rules.NOT_PLAIN, []),
        *(
            (None, one, rules.NOT_PLAIN, [])
            for one in ("lz4", "snappy", "xz", "bzip2", "dcb", "base64")
        ),
        *(
            (None, one, f"Content-Encoding is `{one}`, which is no compression", [])
            for one in (
                "UTF-8",
                "utf8",
                "charset=utf-8",
                "ISO-8859-1",
                "windows-1252",
                "us-ascii",
                "UTF-16LE",
                "application/json",
                "none",
                "8bit",
            )
        ),
        ("a/b" + "c" * 99, None, rules.NOT_JSON, [f"Content-Type is `a/b{'c' * 57}`."]),
        (
            "application/json, application/json",
            None,
            rules.NOT_JSON,
            ["Content-Type is `application/json, application/json`."],
        ),
    ],
)
def test_a_refused_content_type_or_encoding_is_repeated(content_type, encoding, sentence, faults):
    with pytest.raises(rules.Refusal) as refused:
        rules.check_form(content_type, encoding, None)
    assert refused.value.status == 415
    assert refused.value.sentence.startswith(sentence)
    assert list(refused.value.faults) == faults


def test_every_scheme_has_a_remedy():
    assert set(signature_text.CURES) == set(get_args(rules.Scheme))
    assert len(set(signature_text.CURES.values())) == len(signature_text.CURES)


@pytest.mark.parametrize("key", [b"whsec_abc", b"Bearer whsk_abc", b'"whsk_abc"', b""])
def test_a_key_with_another_prefix_gets_a_fault(key):
    assert rules.unknown_key(key).faults == (rules.NO_KEY, rules.KEY_CURE)
    assert rules.unknown_key(b"whsk_abc").faults == (rules.KEY_CURE,)
