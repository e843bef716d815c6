"""Every handler is fed mutated bodies of every type: each is handled, or dead with a reason.

A body may end as `Malformed`, `Permanent` or `Retry`; any other exception is a fault of ours, which
would send it up the ladder for four hours.
"""

import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from services.kyc.__main__ import wire as kyc
from services.notifier.composing import compose
from services.orders.__main__ import wire as orders
from services.secrets.__main__ import wire as secrets
from shared.bus.broker.standing import Standing
from shared.bus.consume.batch import Batches, Delivery
from shared.bus.contract.delivery import RawDelivery, decode_by_type
from shared.bus.contract.errors import Malformed, Permanent, Retry
from shared.bus.contract.events import EVENT_TYPES
from shared.ids import new_id

TYPES = sorted(EVENT_TYPES)
STATUSES = ["PENDING", "IN_TRANSIT", "DELIVERED", "CANCELLED"]
TEXT = st.text(max_size=40) | st.sampled_from(["\0", "a\r\nBcc: x@y.example", "<b>", "\ud800"[:0]])
ANYTHING: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PLAUSIBLE = {
    "account_id": st.builds(lambda: str(new_id())),
    "email": st.just("a@shop.example"),
    "customer_email": st.just("a@shop.example"),
    "decision": st.sampled_from(["approve", "reject", "revoke"]),
    "tracking_status": st.sampled_from(STATUSES),
    "previous_status": st.sampled_from(STATUSES),
    "customer_details": st.just({"name": "Zoë", "email": "a@shop.example", "phone": ""}),
    "expires_at": st.just("2099-01-01T00:00:00Z"),
    "previous_valid_until": st.just("2099-01-01T00:00:00Z"),
    "cause": st.sampled_from(["expired_use", "scheduled", "operator", "business"]),
    "secret_ids": st.builds(lambda: [str(new_id())]),
    "smtp_code": st.just(550),
    "revoke_previous": st.booleans(),
}


def bodies(type_):
    """Bodies of a type, each member as it should be, or anything at all, or missing."""
    members = {}
    for name in EVENT_TYPES[type_].__struct_fields__:
        known = PLAUSIBLE.get(name)
        if known is None:
            known = st.builds(lambda: str(new_id())) if name.endswith("_id") else TEXT
        members[name] = st.one_of(known, known, known, known, ANYTHING)
    whole = st.fixed_dictionaries(members)
    part = st.fixed_dictionaries({}, optional=members)
    return st.one_of(whole, whole, part, ANYTHING).map(lambda value: json.dumps(value).encode())


messages = st.sampled_from(TYPES).flatmap(lambda type_: st.tuples(st.just(type_), bodies(type_)))
incomings = st.builds(
    lambda typed, attempt: RawDelivery(
        body=typed[1],
        properties={"type": typed[0], "message_id": str(new_id())},
        headers={"x-attempt": attempt},
        exchange="events",
    ),
    messages | st.tuples(st.sampled_from(TYPES), st.binary(max_size=200)),
    ANYTHING,
)


@pytest.mark.parametrize("wire", [kyc, secrets, orders], ids=["kyc", "secrets", "orders"])
def test_every_handler(settings, wire):
    for subscription in wire(settings).subscriptions:
        feed(subscription)


def feed(subscription):
    batches = Batches(
        subscription.consumer,
        subscription.decode,
        subscription.handle,
        threading.Event(),
        Standing(subscription.queue.name),
    )

    @budget(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(incomings, min_size=1, max_size=4))
    def fed(found):
        failed = batches.run([Delivery(tag, one) for tag, one in enumerate(found)])
        for error in failed.values():
            assert isinstance(error, Permanent | Retry), repr(error)

    fed()


@budget(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(incomings)
def test_every_email(incoming):
    try:
        received = decode_by_type(incoming)
        email = compose(received)
    except (Malformed, Permanent):
        return
    if email is not None:
        assert "\n" not in email.subject
        assert "\n" not in email.recipient
