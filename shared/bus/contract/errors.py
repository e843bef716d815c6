"""Exceptions with which a handler decides the outcome of a message; see `consume/retry.py`."""


class Permanent(Exception):  # noqa: N818 - the outcome's name, as a handler reads it
    """No retry will help: to the dead letter queue, with this sentence in the headers."""


class Malformed(Permanent):
    """The message cannot be decoded, or must not be trusted."""


class Retry(Exception):  # noqa: N818
    """Retry later. Any other exception means the same; this one is logged as a warning."""


class Happened(Retry):
    """The effect outside the database has happened, and could not be recorded before a stop.

    The message is retried immediately with a note, so that it is recorded and not repeated.
    """


class Hold(Exception):  # noqa: N818
    """A dependency of every message is unreachable, such as the mail server.

    Raised, it holds the whole batch; returned as the outcome of messages, only those. Held messages
    stay unacknowledged and are retried until the dependency is back; no attempt is counted.

    Args:
        sentence: why.
        lacks: a label of the dependency for metrics and alerts, such as `mail`; empty if it is
            reachable but slow.
    """

    def __init__(self, sentence: str, lacks: str = "") -> None:
        super().__init__(sentence)
        self.lacks = lacks


class UnderWay(Hold):
    """The outcome of a message whose effect outside the database has begun and is not known yet.

    It stays unacknowledged and is handled again, while other messages go on. `lacks` is reported as
    unreachable.
    """
