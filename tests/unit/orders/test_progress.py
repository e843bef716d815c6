"""An order's way, whatever the order in which its updates arrive."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.orders.progress import Position, is_news, moves
from shared.bus.events import FINAL_STATUSES, TrackingStatus

ORDER = UUID(int=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = [status for status in TrackingStatus if status not in FINAL_STATUSES]


def created(at=BEGIN):
    return Position(TrackingStatus.PENDING, at, ORDER)


def at(seconds, status=TrackingStatus.IN_TRANSIT, event=2):
    return Position(status, BEGIN + timedelta(seconds=seconds), UUID(int=event))


def test_a_later_stamp_wins():
    assert moves(ORDER, at(1), at(2))
    assert not moves(ORDER, at(2), at(1))


def test_of_two_with_one_stamp_the_greater_id_wins():
    assert moves(ORDER, at(1, event=2), at(1, event=3))
    assert not moves(ORDER, at(1, event=3), at(1, event=2))


def test_any_update_beats_the_creation():
    assert moves(ORDER, created(), at(-3600))


def test_final_is_final():
    for status in FINAL_STATUSES:
        assert not moves(ORDER, at(1, status), at(2))


def test_what_is_news():
    moving = at(1)
    assert is_news(created(), moving, "")
    assert not is_news(moving, at(2), "  ")
    assert is_news(moving, at(2), "at the depot")


updates = st.lists(
    st.builds(
        at,
        st.integers(-5, 5),
        st.sampled_from(OPEN),
        st.integers(2, 50),
    ),
    max_size=5,
    unique_by=lambda p: p.event_id,
)


@given(updates)
def test_the_end_does_not_depend_on_the_order_of_arrival(said):
    ends = set()
    for arrival in permutations(said):
        current = created()
        for update in arrival:
            if moves(ORDER, current, update):
                current = update
        ends.add(current)
    assert len(ends) == 1
