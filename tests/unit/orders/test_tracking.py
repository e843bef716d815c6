"""What is known of a parcel, whatever the order in which its messages arrive."""

from datetime import date
from itertools import permutations
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.orders import tracking
from services.orders.progress import is_news
from shared.bus.contract.events import OrderStatusChanged, TrackingStatus
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
def test_the_end_is_a_function_of_what_was_said(first, begin, said):
    ends = [lived(first, begin, arrival) for arrival in permutations(said)]
    assert all(end == ends[0] for end in ends)
    assert lived(first, begin, [*said, *said]) == ends[0]
    for field in tracking.FIELDS:
        of_it = [values[field] for values in (begin, *(v for _, v in said)) if field in values]
        assert (field in ends[0]) == bool(of_it)
        assert not of_it or ends[0][field].value in of_it


def test_the_later_says_where_and_takes_nothing_away():
    said = [
        (at(1, event=2), {"carrier": "Swift", "tracking_number": "1"}),
        (at(3, event=4), {"tracking_number": "2"}),
        (at(2, event=3), {"tracking_number": "late", "estimated_delivery": "2026-12-03"}),
        (at(4, event=5), {}),
    ]
    known = lived(TrackingStatus.PENDING, {"carrier": "first"}, said)
    assert tracking.values(known) == {
        "carrier": "Swift",
        "tracking_number": "2",
        "estimated_delivery": "2026-12-03",
    }


def test_more_of_the_parcel_is_news_while_the_order_is_open():
    assert is_news(at(1), at(2), "", tells_more=True)
    assert not is_news(at(1), at(2), "", tells_more=False)
    delivered = at(2, TrackingStatus.DELIVERED)
    assert not is_news(delivered, at(1, TrackingStatus.DELIVERED), "", tells_more=True)


def test_what_an_event_says():
    event = OrderStatusChanged(
        order_id=UUID(int=1),
        account_id=UUID(int=2),
        tracking_status=TrackingStatus.IN_TRANSIT,
        carrier="Swift",
        estimated_delivery=date(2026, 12, 3),
    )
    said = tracking.said_in(event)
    assert said == {"carrier": "Swift", "estimated_delivery": "2026-12-03"}
    told = tracking.as_told(said)
    assert told == {"carrier": "Swift", "estimated_delivery": date(2026, 12, 3)}
