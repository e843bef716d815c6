"""Acknowledge deliveries in as few `basic.ack` frames as possible."""

from collections.abc import Iterable


class DeliveryTags:
    """The unacknowledged delivery tags of one channel.

    `basic.ack` with `multiple` covers every lower tag (AMQP 0-9-1), including one whose message has
    to go back to the queue, which would lose that message. So `multiple` is used only up to the
    lowest tag that stays open.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # in the order of the tags

    def received(self, tag: int) -> None:
        """Note a delivery."""
        self._open[tag] = None

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Close tags and return how to acknowledge them.

        Args:
            tags: received and not settled before.

        Returns:
            Pairs of a tag and the `multiple` flag of its `basic.ack`.
        """
        ordered = sorted(tags)
        for tag in ordered:
            del self._open[tag]
        lowest = next(iter(self._open), None)
        in_row = [tag for tag in ordered if lowest is None or tag < lowest]
        rest = [(tag, False) for tag in ordered[len(in_row) :]]
        return [(in_row[-1], True), *rest] if in_row else rest
