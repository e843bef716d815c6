"""A figure that is looked at again and again beside a load."""

import threading
import time
from collections.abc import Callable


class Sampling:
    """Looks for as long as the context lasts.

    Args:
        look: gives the figure.
        seconds: between two looks.

    Attributes:
        samples: when it was looked, in seconds since 1970, and what was found.
    """

    def __init__(self, look: Callable[[], int], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, int]] = []

    def __enter__(self) -> "Sampling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            at = time.time()
            self.samples.append((at, self._look()))
