"""Events of this version read by services of the version before, and theirs by ours.

While a system is upgraded, both run. The Structs here are those of version 1.3, as they were.
"""

from datetime import date
from uuid import UUID

import msgspec
import pytest

from shared.bus.contract import events
from shared.bus.contract.events import TrackingStatus
from shared.ids import new_id


class OrderCreated(msgspec.Struct, frozen=True, kw_only=True):
    order_id: UUID
    account_id: UUID
    customer_details: events.CustomerDetails
    item_summary: str
    address: str
    tracking_status: TrackingStatus = TrackingStatus.PENDING


class OrderStatusChanged(msgspec.Struct, frozen=True, kw_only=True):
    order_id: UUID
    account_id: UUID
    tracking_status: TrackingStatus
    note: str = ""


class OrderCancelled(msgspec.Struct, frozen=True, kw_only=True):
    order_id: UUID
    account_id: UUID
    reason: str = ""


class OrderStatusRecorded(msgspec.Struct, frozen=True, kw_only=True):
    order_id: UUID
    account_id: UUID
    company_name: str
    customer_name: str
    customer_email: events.Email
    item_summary: str
    tracking_status: TrackingStatus
    previous_status: TrackingStatus
    note: str


class OrderNotTaken(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    company_name: str
    email: events.Email
    what: str
    order_id: UUID
    event_id: UUID


COMMON = {"order_id": new_id(), "account_id": new_id()}
PARCEL = {
    "carrier": "Swift",
    "tracking_number": "JD0146",
    "tracking_url": "https://track.carrier.example/JD0146",
    "estimated_delivery": date(2026, 12, 3),
}
OF_CUSTOMER = {
    "company_name": "Kettle",
    "customer_name": "Zoe",
    "customer_email": "zoe@shop.example",
    "item_summary": "kettle",
    "tracking_status": TrackingStatus.IN_TRANSIT,
}
KINDS = [
    (
        OrderCreated,
        {
            "customer_details": events.CustomerDetails(name="Zoe", email="zoe@shop.example"),
            "item_summary": "kettle",
            "address": "here",
        },
        PARCEL | {"order_number": "A-1", "metadata": {"branch": "Lekki"}},
    ),
    (
        OrderStatusChanged,
        {"tracking_status": TrackingStatus.IN_TRANSIT},
        PARCEL | {"order_number": "A-1"},
    ),
    (OrderCancelled, {"reason": "gone"}, {"order_number": "A-1"}),
    (
        OrderStatusRecorded,
        OF_CUSTOMER | {"previous_status": TrackingStatus.PENDING, "note": ""},
        PARCEL | {"order_number": "A-1"},
    ),
    (
        OrderNotTaken,
        {
            "company_name": "Kettle",
            "email": "k@kettle.example",
            "what": "key_reused",
            "event_id": new_id(),
        },
        {"order_number": "A-1", "of_shop": True},
    ),
]


@pytest.mark.parametrize(("before", "members", "new"), KINDS)
def test_each_reads_the_others(before, members, new):
    now = getattr(events, before.__name__)
    told = now(**COMMON, **members, **new)
    seen_before = msgspec.json.decode(events.encode(told), type=before)
    assert seen_before == before(**COMMON, **members)
    seen_now = events.decode(now.TYPE, msgspec.json.encode(seen_before))
    assert seen_now == now(**COMMON, **members)
    # What has nothing new is on the bus what it was, to the byte.
    assert events.encode(seen_now) == msgspec.json.encode(seen_before)
