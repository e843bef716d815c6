"""What is known of a parcel, whatever the order in which its messages arrive."""

from datetime import date
from itertools import permutations
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orders import tracking
from services.orders.progress import is_news
from shared.bus.contract.events import OrderPlaced, OrderStatusChanged, TrackingStatus
from tests.integration.arrange import order_created
from tests.unit.orders.test_progress import ORDER, STATUSES, at, created

says = st.dictionaries(st.sampled_from(tracking.FIELDS), st.sampled_from("abc"), max_size=4)
updates = st.lists(
    st.tuples(
        st.builds(at, st.integers(-2, 2), st.sampled_from(STATUSES), st.integers(2, 50)), says
    ),
    max_size=5,
    unique_by=lambda update: update[0].event_id,
)


def lived(first, begin, said):
    """What is known in the end; written down and read again after each, as rows are."""
    known = tracking.merged(ORDER, {}, begin, created(first))
    for update, values in said:
        row = msgspec.json.decode(
            msgspec.json.encode([tracking.values(known), tracking.sources(known)])
        )
        assert tracking.stored(*row) == known
        known = tracking.merged(ORDER, known, values, update)
    return known


@given(st.sampled_from(STATUSES), says, updates)
def test_the_result_does_not_depend_on_the_order_of_arrival(first, begin, said):
    ends = [lived(first, begin, arrival) for arrival in permutations(said)]
    assert all(end == ends[0] for end in ends)
    assert lived(first, begin, [*said, *said]) == ends[0]
    for field in tracking.FIELDS:
        of_it = [values[field] for values in (begin, *(v for _, v in said)) if field in values]
        assert (field in ends[0]) == bool(of_it)
        numbers = {values.get("tracking_number") for values in (begin, *(v for _, v in said))}
        may_be_hidden = field in ("carrier", "tracking_url") and len(numbers - {None}) > 1
        shown = tracking.values(ends[0]).get(field)
        assert not of_it or shown in of_it or (shown is None and may_be_hidden)


def test_a_later_message_replaces_only_the_fields_it_contains():
    said = [
        (at(1, event=2), {"carrier": "Swift", "tracking_number": "1"}),
        (at(3, event=4), {"tracking_number": "1"}),
        (at(2, event=3), {"tracking_url": "url", "estimated_delivery": "2026-12-03"}),
        (at(4, event=5), {}),
    ]
    known = lived(TrackingStatus.PENDING, {"carrier": "first"}, said)
    assert tracking.values(known) == {
        "carrier": "Swift",
        "tracking_number": "1",
        "tracking_url": "url",
        "estimated_delivery": "2026-12-03",
    }


OF_TWO_PARCELS = [
    # Another number takes away what it does not repeat: said with the first one, alone, or before.
    ([{"tracking_number": "1", "carrier": "A", "tracking_url": "u"}, {"tracking_number": "2"}], {}),
    ([{"carrier": "A"}, {"tracking_number": "1"}, {"tracking_number": "2"}], {}),
    ([{"tracking_number": "1"}, {"tracking_url": "u"}, {"tracking_number": "2"}], {}),
    ([{"tracking_number": "1", "carrier": "A"}, {"tracking_number": "2", "tracking_url": "u"}],
     {"tracking_url": "u"}),
    ([{"tracking_number": "1"}, {"tracking_number": "2"}, {"carrier": "B"}], {"carrier": "B"}),
    ([{"tracking_number": "1"}, {"tracking_number": "2", "carrier": "B"}, {"tracking_number": "2"}],
     {"carrier": "B"}),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "left"), OF_TWO_PARCELS)
def test_a_second_parcel_has_neither_carrier_nor_link_of_the_first(steps, left):
    said = [(at(n, event=n + 2), step) for n, step in enumerate(steps)]
    for arrival in permutations(said):
        known = tracking.values(lived(TrackingStatus.PENDING, {}, arrival))
        assert known == {"tracking_number": "2"} | left


@pytest.mark.parametrize("second", [{"carrier": "B"}, {"carrier": "B", "tracking_number": "2"}])
def test_a_platforms_message_always_has_a_number(second):
    first = {"carrier": "A", "tracking_number": "1", "tracking_url": "https://a.example/1"}
    order = order_created()
    placed = {name: getattr(order, name) for name in order.__struct_fields__}
    said = [tracking.fields_of(OrderPlaced(**placed | parcel)) for parcel in (first, second)]
    known = lived(TrackingStatus.PENDING, {}, [(at(n, event=n + 2), s) for n, s in enumerate(said)])
    assert tracking.values(known) == second
    # What the shop has not noted, its owner may have told us.
    assert tracking.fields_of(OrderPlaced(**placed)) == {}


@pytest.mark.parametrize("ids", [(2, 3, 4), (4, 3, 2)])
def test_of_a_platforms_states_with_one_stamp_the_later_number_and_its_carrier_are_shown(ids):
    known = {}
    for id_, number, carrier in zip(ids, "123", "ABC", strict=True):
        fields = {"tracking_number": number, "carrier": carrier}
        known = tracking.merged(ORDER, known, fields, at(1, event=id_), by_arrival=True)
        assert tracking.values(known) == fields
    known = tracking.merged(ORDER, known, {"tracking_number": "4"}, at(1, event=9), by_arrival=True)
    assert tracking.values(known) == {"tracking_number": "4"}


def test_more_of_the_parcel_is_news_while_the_order_is_open():
    assert is_news(at(1), at(2), "", tells_more=True)
    assert not is_news(at(1), at(2), "", tells_more=False)
    delivered = at(2, TrackingStatus.DELIVERED)
    assert not is_news(delivered, at(1, TrackingStatus.DELIVERED), "", tells_more=True)


def test_the_tracking_fields_of_an_event():
    event = OrderStatusChanged(
        order_id=UUID(int=1),
        account_id=UUID(int=2),
        tracking_status=TrackingStatus.IN_TRANSIT,
        carrier="Swift",
        estimated_delivery=date(2026, 12, 3),
    )
    said = tracking.fields_of(event)
    assert said == {"carrier": "Swift", "estimated_delivery": "2026-12-03"}
    told = tracking.event_fields(said)
    assert told == {"carrier": "Swift", "estimated_delivery": date(2026, 12, 3)}
