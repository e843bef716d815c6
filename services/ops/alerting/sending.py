"""A message on its way, for which nobody needs to wait longer than they can."""

import time
from concurrent.futures import Future, wait
from datetime import datetime
from threading import Thread

from services.ops.alerting.channels import Channel, NotToldError
from services.ops.alerting.due import Due


class Sending:
    """One message, which begins to be sent, in a thread of its own: a server may answer for ever.

    Args:
        channel: by what.
        message: what.
        at: the time.
    """

    def __init__(self, channel: Channel, message: Due, at: datetime) -> None:
        self.message, self.at = message, at
        self._channel = channel
        self._began = time.monotonic()
        self._end: Future[None] = Future()
        Thread(target=self._run, name=f"alert {channel.name}", daemon=True).start()

    @property
    def seconds(self) -> float:
        """For how long it is on its way."""
        return time.monotonic() - self._began

    @property
    def error(self) -> str:
        """Of one that has ended, why it did not get through; empty when it did."""
        error = self._end.exception()
        if error is None:
            return ""
        return str(error) if isinstance(error, NotToldError) else type(error).__name__

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return bool(wait([self._end], seconds).done)

    def _run(self) -> None:
        try:
            self._channel.send(self.message.subject, self.message.text(self.at))
        except Exception as error:  # noqa: BLE001 - whatever it was, it may have got through or not
            self._end.set_exception(error)
        else:
            self._end.set_result(None)
