"""An order's way, whatever the order in which its updates arrive."""

from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orders.progress import Position, is_news, moves
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
    assert moves(ORDER, at(1), at(2))
    assert not moves(ORDER, at(2), at(1))


def test_of_two_with_one_stamp_the_greater_id_wins():
    assert moves(ORDER, at(1, event=2), at(1, event=3))
    assert not moves(ORDER, at(1, event=3), at(1, event=2))


def test_any_update_beats_the_creation():
    assert moves(ORDER, created(), at(-3600))


@pytest.mark.parametrize("seconds", [-1, 1])
def test_of_two_that_an_order_is_new_the_one_that_says_where_it_is_wins(seconds):
    there = Position(TrackingStatus.IN_TRANSIT, BEGIN + timedelta(seconds=seconds), ORDER)
    assert moves(ORDER, created(), there)
    assert not moves(ORDER, there, created())
    assert moves(ORDER, there, at(-3600, TrackingStatus.PENDING))


@pytest.mark.parametrize(("final", "open_"), list(product(sorted(FINAL_STATUSES), OPEN)))
@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_a_final_status_beats_an_open_one_whatever_the_stamps(final, open_, seconds):
    assert moves(ORDER, at(1, open_), at(seconds, final))
    assert not moves(ORDER, at(seconds, final), at(1, open_))
    assert not moves(ORDER, created(final), at(seconds, open_))


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_what_was_delivered_was_not_cancelled(seconds):
    assert moves(ORDER, at(1, CANCELLED), at(seconds, DELIVERED))
    assert not moves(ORDER, at(1, DELIVERED), at(seconds, CANCELLED))


@pytest.mark.parametrize("final", sorted(FINAL_STATUSES))
def test_a_final_status_came_true_when_it_was_said_first(final):
    assert moves(ORDER, at(2, final), at(1, final))
    assert not moves(ORDER, at(1, final), at(2, final))
    assert not is_news(at(2, final), at(1, final), "at the door")


def test_what_is_news():
    moving = at(1)
    assert is_news(created(), moving, "")
    assert not is_news(moving, at(2), "  ")
    assert is_news(moving, at(2), "at the depot")


def lived(begin, said):
    """Where an order ends that hears `said` in this order, and which statuses the customer does."""
    current, told = begin, [begin.status]
    for update, note in said:
        if moves(ORDER, current, update):
            if is_news(current, update, note):
                told.append(update.status)
            current = update
    return current, told


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
def test_the_end_is_a_function_of_what_was_said(first, said):
    lives = [lived(created(first), arrival) for arrival in permutations(said)]
    (end,) = {end for end, _ in lives}
    statuses = {first, *(update.status for update, _ in said)}
    for _, told in lives:
        # Of what the order came to, the customer heard last, and of each final status once.
        assert told[-1] is end.status
        assert all(told.count(final) <= 1 for final in FINAL_STATUSES)
        assert told.count(DELIVERED) == (DELIVERED in statuses)


@given(st.sampled_from(STATUSES), updates)
def test_what_comes_twice_counts_once(first, said):
    once, told = lived(created(first), said)
    assert lived(created(first), [*said, *said]) == (once, told)
