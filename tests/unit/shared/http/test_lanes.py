"""One caller fills no lane up; an idle lane binds nobody."""

import asyncio
import threading
import time

import pytest

from shared.http.errors import ApiError
from shared.http.lanes import Lane

THREADS, WAITING = 2, 14
HALF = (THREADS + WAITING) // 2


def test_who_has_a_share_takes_no_more_of_a_lane_that_fills():
    asyncio.run(who_has_a_share_takes_no_more_of_a_lane_that_fills())


async def who_has_a_share_takes_no_more_of_a_lane_that_fills():
    lane, go = Lane("t", THREADS, WAITING), threading.Event()

    def begin(caller):
        return asyncio.create_task(lane.run(go.wait, caller))

    a = [begin("a") for _ in range(HALF + 5)]
    await asyncio.sleep(0)
    # All that found it half empty, and no more.
    assert len([one for one in a if not one.done()]) == HALF + 1
    assert {type(one.exception()) for one in a if one.done()} == {ApiError}
    with pytest.raises(ApiError):
        lane.require_room("a")
    lane.require_room("b")
    lane.require_room()
    b = [begin("b") for _ in range(THREADS + 1)]
    await asyncio.sleep(0)
    assert [one.done() for one in b] == [False] * THREADS + [True]
    # Nobody's in particular take what is left.
    others = [begin("") for _ in range(WAITING)]
    await asyncio.sleep(0)
    assert len([one for one in others if not one.done()]) == WAITING + THREADS - HALF - 1 - THREADS
    go.set()
    await asyncio.gather(*a, *b, *others, return_exceptions=True)
    lane.shutdown()


def test_whatever_becomes_of_it_a_place_is_given_back():
    lane = asyncio.run(whatever_becomes_of_it_a_place_is_given_back())
    while lane.taken_by:
        time.sleep(0.01)
    lane.shutdown()


async def whatever_becomes_of_it_a_place_is_given_back():
    lane, go = Lane("t", THREADS, WAITING), threading.Event()

    def fails():
        go.wait()
        raise ValueError

    running = [asyncio.create_task(lane.run(fails, "a")) for _ in range(THREADS + 2)]
    await asyncio.sleep(0)
    running[0].cancel()  # it runs on
    running[-1].cancel()  # it has not begun
    go.set()
    found = await asyncio.gather(*running, return_exceptions=True)
    assert [type(one) for one in found[1:-1]] == [ValueError] * THREADS
    return lane
