"""An order's way, whatever the order in which its updates arrive."""

from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orders.progress import Position, applies, is_news
from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus

ORDER = UUID(int=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = list(TrackingStatus)
OPEN = [status for status in STATUSES if status not in FINAL_STATUSES]
CANCELLED, DELIVERED = TrackingStatus.CANCELLED, TrackingStatus.DELIVERED


def created(status=TrackingStatus.PENDING):
    return Position(status, BEGIN, ORDER)


def at(seconds, status=TrackingStatus.IN_TRANSIT, event=2):
    return Position(status, BEGIN + timedelta(seconds=seconds), UUID(int=event))


def test_a_later_stamp_wins():
    assert applies(ORDER, at(1), at(2))
    assert not applies(ORDER, at(2), at(1))


def test_of_two_with_one_stamp_the_greater_id_wins():
    assert applies(ORDER, at(1, event=2), at(1, event=3))
    assert not applies(ORDER, at(1, event=3), at(1, event=2))


def test_of_a_platforms_states_with_one_stamp_the_later_arrival_wins():
    for ids in ((2, 3), (3, 2)):
        first, second = (at(1, event=id_) for id_ in ids)
        assert applies(ORDER, first, second, by_arrival=True)
    assert not applies(ORDER, second, second, by_arrival=True)  # a copy
    assert not applies(ORDER, at(2), at(1), by_arrival=True)


def test_any_update_beats_the_creation():
    assert applies(ORDER, created(), at(-3600))


@pytest.mark.parametrize("seconds", [-1, 1])
def test_of_two_creations_the_one_with_a_status_wins(seconds):
    there = Position(TrackingStatus.IN_TRANSIT, BEGIN + timedelta(seconds=seconds), ORDER)
    assert applies(ORDER, created(), there)
    assert not applies(ORDER, there, created())
    assert applies(ORDER, there, at(-3600, TrackingStatus.PENDING))


@pytest.mark.parametrize(("final", "open_"), list(product(sorted(FINAL_STATUSES), OPEN)))
@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_a_final_status_beats_an_open_one_whatever_the_stamps(final, open_, seconds):
    assert applies(ORDER, at(1, open_), at(seconds, final))
    assert not applies(ORDER, at(seconds, final), at(1, open_))
    assert not applies(ORDER, created(final), at(seconds, open_))


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_delivered_beats_cancelled(seconds):
    assert applies(ORDER, at(1, CANCELLED), at(seconds, DELIVERED))
    assert not applies(ORDER, at(1, DELIVERED), at(seconds, CANCELLED))


@pytest.mark.parametrize("final", sorted(FINAL_STATUSES))
def test_of_one_final_status_the_earlier_stamp_wins(final):
    assert applies(ORDER, at(2, final), at(1, final))
    assert not applies(ORDER, at(1, final), at(2, final))
    assert not is_news(at(2, final), at(1, final), "at the door")


def test_what_is_news():
    moving = at(1)
    assert is_news(created(), moving, "")
    assert not is_news(moving, at(2), "  ")
    assert is_news(moving, at(2), "at the depot")


def final(begin, arrivals):
    """Return an order's position after updates in this order, and the statuses that are mailed."""
    current, mailed = begin, [begin.status]
    for update, note in arrivals:
        if applies(ORDER, current, update):
            if is_news(current, update, note):
                mailed.append(update.status)
            current = update
    return current, mailed


updates = st.lists(
    st.tuples(
        st.builds(
            at,
            st.integers(-2, 2),
            st.sampled_from(STATUSES),
            st.integers(2, 50),
        ),
        st.sampled_from(["", "at the depot"]),
    ),
    max_size=5,
    unique_by=lambda update: update[0].event_id,
)


@given(st.sampled_from(STATUSES), updates)
def test_the_final_status_does_not_depend_on_the_order_of_arrival(first, sent):
    ends = [final(created(first), arrivals) for arrivals in permutations(sent)]
    (end,) = {end for end, _ in ends}
    statuses = {first, *(update.status for update, _ in sent)}
    for _, mailed in ends:
        # The last email has the order's status, and each final status is mailed once.
        assert mailed[-1] is end.status
        assert all(mailed.count(status) <= 1 for status in FINAL_STATUSES)
        assert mailed.count(DELIVERED) == (DELIVERED in statuses)


@given(st.sampled_from(STATUSES), updates)
def test_a_repeated_message_counts_once(first, sent):
    assert final(created(first), [*sent, *sent]) == final(created(first), sent)
