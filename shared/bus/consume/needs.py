"""Whether what a consumer's transactions need is there, before the broker sends it anything."""

from collections.abc import Callable

from shared.bus.consume import inbox
from shared.bus.contract.errors import Hold
from shared.db.session import is_database_away, transaction


def look(consumer: str, beside: Callable[[], None] | None = None) -> Exception | None:
    """Try what each transaction begins with, and undo it.

    Args:
        consumer: whose inbox is written to: a standby and a full disk can be read from.
        beside: looks for what is needed beside the database, and raises `Hold` where it is away.

    Returns:
        What says that nothing should be taken, for `batch.held_by`. What is wrong in another way is
        told by the first message, which fails by it.
    """
    try:
        with transaction() as session:
            inbox.rehearse(session, consumer)
        if beside is not None:
            beside()
    except Exception as error:  # noqa: BLE001 - as said above
        if isinstance(error, Hold) or is_database_away(error):
            return error
    return None
