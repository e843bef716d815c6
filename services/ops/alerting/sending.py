"""Sends one message in a thread, so that the caller can stop waiting for it."""

import time
from concurrent.futures import Future, wait
from datetime import datetime
from threading import Thread

from services.ops.alerting.channels import Channel, NotSentError
from services.ops.alerting.due import Due


class Sending:
    """One message, sent in its own thread: a server may keep the connection open indefinitely.

    Args:
        channel: the channel to send on.
        message: the message.
        at: the time of the message.
    """

    def __init__(self, channel: Channel, message: Due, at: datetime) -> None:
        self.message, self.at = message, at
        self._channel = channel
        self._began = time.monotonic()
        self._end: Future[None] = Future()
        Thread(target=self._run, name=f"alert {channel.name}", daemon=True).start()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def error(self) -> str:
        """Why an ended message was not sent; empty if it was."""
        error = self._end.exception()
        if error is None:
            return ""
        return str(error) if isinstance(error, NotSentError) else type(error).__name__

    def has_ended(self, seconds: float) -> bool:
        """Wait for the end for at most so many seconds; return whether it has ended."""
        return bool(wait([self._end], seconds).done)

    def _run(self) -> None:
        try:
            self._channel.send(self.message.subject, self.message.text(self.at))
        except Exception as error:  # noqa: BLE001 - the caller reports any failure
            self._end.set_exception(error)
        else:
            self._end.set_result(None)
