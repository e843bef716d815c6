"""The webhook and `POST /webhooks/test/` judge by the same rules: neither can disagree."""

import asyncio
import base64
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from falcon import testing
from falcon.asgi import Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.secret import LIVE
from services.ingress.diagnosis.reasons import Secret, diagnose
from services.ingress.webhook import bodies
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.authentication import ApiKeyScheme, StandardScheme
from services.ingress.webhook.endpoint import OrderWebhook
from services.ingress.webhook.known_keys import KnownKeys
from services.ingress.webhook.refusals import Refusals
from shared.ids import new_id
from shared.security.webhook_keys import encode_key, key_hash, seal
from shared.token_buckets import TokenBuckets
from tests.integration.ingress.conftest import ORDER

NOW = 1_700_000_000
ACCOUNT = new_id()
STATES = ("revoked", "expired", "over", "retiring", "active")
"""Those of the account's secrets, from the oldest; one is over and nobody has marked it yet."""
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
            state="active" if state == "over" else state,
            expires_at=_at + timedelta(days=-1 if is_over else 1),
            change=1,
        )


ROWS = tuple(rows())
SECRETS = tuple(
    Secret(row.id, row.raw, "expired" if row.expires_at <= _at and row.state in LIVE else row.state)
    for row in reversed(ROWS)
)


class Log:
    """What became of the last request."""

    code = ""

    def add(self, _, attempt, *__):
        self.code = attempt.code


class Safe:
    """Makes nothing safe, at once."""

    async def accept(self, _):
        return


class Nowhere(SecretCache):
    """The cache of a worker to whom the database has nothing to add."""

    async def find(self, _):
        return None

    async def look_again(self, _):
        return


def webhook(scheme, *, is_standard_only, log):
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
    cache = Nowhere(ThreadPoolExecutor(1), policies)
    cache.clock = SimpleNamespace(now=lambda: NOW)
    for row in ROWS:
        cache._take(row)
    refusals = Refusals(TokenBuckets(1e9, 1e9))
    admission = Admission(
        Safe(), refusals, policies, TokenBuckets(1e9, 1e9), 10**9, "http://x/", cache.clock
    )
    metrics = SimpleNamespace(webhook=lambda *_: None)
    return OrderWebhook(
        scheme(cache, refusals, 1 << 20), admission, Safe(), metrics, log, KnownKeys()
    )


def answered(headers, body, *, is_standard_only):
    """The code with which the webhook answers."""
    log = Log()
    is_standard = any(name.startswith(b"webhook-") for name, _ in headers)
    scheme = StandardScheme if is_standard else ApiKeyScheme
    endpoint = webhook(scheme, is_standard_only=is_standard_only, log=log)
    scope = testing.create_scope("/", "POST", content_length=len(body))
    scope["headers"] = [*headers, (b"content-length", b"%d" % len(body))]

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    asyncio.run(endpoint.on_post(Request(scope, receive), Response(), str(ACCOUNT)))
    return log.code


def told(headers, body, *, is_standard_only):
    """The code that the test endpoint tells of."""
    sent = {name.decode("latin-1"): value.decode() for name, value in headers}
    found = diagnose(sent, body, SECRETS, NOW, is_standard_only=is_standard_only)
    if found.code:
        return found.code
    try:
        bodies.read(body, ACCOUNT, None)
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
    right = base64.b64encode(hmac.digest(raw, b"%b.%b.%b" % (id_, stamp, body), "sha256"))
    entry = st.sampled_from([b"v1," + right, b"v1,AAAA", b"v2," + right, b"", b"v1a," + right])
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
def test_what_the_test_endpoint_tells_is_what_the_webhook_answers(request_, is_standard_only):
    headers, body = request_
    assert told(headers, body, is_standard_only=is_standard_only) == answered(
        headers, body, is_standard_only=is_standard_only
    )


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
def test_what_two_sets_of_rules_once_judged_in_two_ways(headers, code):
    request_ = (list(headers.items()), BODY)
    assert told(*request_, is_standard_only=False) == code
    assert answered(*request_, is_standard_only=False) == code


def test_an_account_that_takes_standard_webhooks_only():
    request_ = (list(keyed().items()), BODY)
    assert told(*request_, is_standard_only=True) == "scheme_not_allowed"
    assert answered(*request_, is_standard_only=True) == "scheme_not_allowed"
