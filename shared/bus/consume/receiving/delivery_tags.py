"""Which deliveries of a channel are settled, and how to acknowledge them in the fewest frames."""

from collections.abc import Iterable


class DeliveryTags:
    """The deliveries of one channel that are not acknowledged.

    An acknowledgement with `multiple` covers every lower tag (AMQP 0-9-1, `basic.ack`), also of a
    message that has to go back to the queue: that one would be lost.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # in the order of the tags, as they came

    def came(self, tag: int) -> None:
        """Note a delivery."""
        self._open[tag] = None

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Note that deliveries are done.

        Args:
            tags: theirs, each of which came and was not settled.

        Returns:
            The acknowledgements to send: a tag, and whether all lower ones are meant too.
        """
        ordered = sorted(tags)
        for tag in ordered:
            del self._open[tag]
        lowest = next(iter(self._open), None)
        in_row = [tag for tag in ordered if lowest is None or tag < lowest]
        rest = [(tag, False) for tag in ordered[len(in_row) :]]
        return [(in_row[-1], True), *rest] if in_row else rest
