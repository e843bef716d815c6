"""What is acknowledged is what was done, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.consume.receiving.delivery_tags import DeliveryTags


@given(st.lists(st.tuples(st.integers(0, 8), st.sets(st.integers(1, 40))), max_size=20))
def test_no_acknowledgement_covers_what_is_not_done(steps):
    """Deliveries come, and any of those that came are done, in any order."""
    tags, came, done, acknowledged = DeliveryTags(), 0, set(), set()
    for more, wanted in steps:
        for _ in range(more):
            came += 1
            tags.received(came)
        now = {tag for tag in wanted if tag <= came} - done
        done |= now
        for tag, multiple in tags.settle(now):
            acknowledged |= set(range(1, tag + 1)) if multiple else {tag}
        assert acknowledged == done


def test_what_is_done_in_a_row_goes_in_one():
    tags = DeliveryTags()
    for tag in range(1, 101):
        tags.received(tag)
    assert tags.settle(range(1, 65)) == [(64, True)]
    assert tags.settle([66, 67]) == [(66, False), (67, False)]
    assert tags.settle(range(68, 101)) == [(tag, False) for tag in range(68, 101)]
    assert tags.settle([65]) == [(65, True)]
