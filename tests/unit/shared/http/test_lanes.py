"""A caller cannot fill a lane, and is not limited on an idle one."""

import asyncio
import threading
import time

import pytest

from shared.http.errors import ApiError
from shared.http.lanes import Lane

THREADS, WAITING = 2, 14
HALF = (THREADS + WAITING) // 2


def test_a_caller_is_limited_to_a_share_of_a_crowded_lane():
    asyncio.run(a_caller_is_limited_to_a_share_of_a_crowded_lane())


async def a_caller_is_limited_to_a_share_of_a_crowded_lane():
    lane, go = Lane("t", THREADS, WAITING), threading.Event()

    def begin(caller):
        return asyncio.create_task(lane.run(go.wait, caller))

    a = [begin("a") for _ in range(HALF + 5)]
    await asyncio.sleep(0)
    # All that found it half empty.
    assert len([one for one in a if not one.done()]) == HALF + 1
    assert {type(one.exception()) for one in a if one.done()} == {ApiError}
    with pytest.raises(ApiError):
        lane.require_room("a")
    lane.require_room("b")
    lane.require_room()
    b = [begin("b") for _ in range(THREADS + 1)]
    await asyncio.sleep(0)
    assert [one.done() for one in b] == [False] * THREADS + [True]
    # Work without a caller takes the remaining places.
    others = [begin("") for _ in range(WAITING)]
    await asyncio.sleep(0)
    assert len([one for one in others if not one.done()]) == WAITING + THREADS - HALF - 1 - THREADS
    go.set()
    await asyncio.gather(*a, *b, *others, return_exceptions=True)
    lane.shutdown()


def test_a_place_is_released_after_any_outcome():
    lane = asyncio.run(a_place_is_released_after_any_outcome())
    while lane.taken_by:
        time.sleep(0.01)
    lane.shutdown()


async def a_place_is_released_after_any_outcome():
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
