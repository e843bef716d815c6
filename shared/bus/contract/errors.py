"""What a handler raises of a message: what becomes of it is decided in `consume/retry.py`."""


class Permanent(Exception):  # noqa: N818 - the outcome's name, as a handler reads it
    """No retry will help: straight to the dead queue, with this sentence in the headers."""


class Malformed(Permanent):
    """The message cannot be understood."""


class Retry(Exception):  # noqa: N818
    """Try again later. Any other exception means the same; this one is expected."""


class Happened(Retry):
    """It was done, outside the database, which could not be told before the process had to stop.

    It comes back at once, with a note of that, to be written down and not to be done again.
    """


class Hold(Exception):  # noqa: N818
    """Something that every message needs is away, such as the mail server.

    Raised, it holds the batch; as what became of single messages, those, and the others are done.
    What is held is kept and tried again until it works; no message is blamed.

    Args:
        sentence: why.
        lacks: what is away, in a word for those who are told of it, such as `mail`; empty where it
            is there and takes its time.
    """

    def __init__(self, sentence: str, lacks: str = "") -> None:
        super().__init__(sentence)
        self.lacks = lacks


class UnderWay(Hold):
    """As what became of a message: its effect outside the database has begun and is not known yet.

    It stays in hand and is asked about again, and others go on meanwhile, though what it `lacks`
    is told of as being away.
    """
