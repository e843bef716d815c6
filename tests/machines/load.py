"""Signed orders through the door of a deployment, for as long as it is disturbed."""

import collections
import threading
import time
import uuid

from tests.machines.deployment import Deployment


def order() -> dict[str, object]:
    """An order of a customer of its own: how many emails an address gets in a day is bounded."""
    one = uuid.uuid4().hex
    return {
        "customer_details": {
            "name": "Zoë Ade",
            "email": f"zoe-{one}@example.com",
            "phone": "+2348000000",
        },
        "item_summary": f"2 × blue kettle, {one}",
        "address": "12 Marina Road, Lagos",
        "tracking_status": "PENDING",
    }


class Load:
    """Orders, one after the other in two threads, until it is stopped."""

    def __init__(self, deployment: Deployment, secret: str) -> None:
        self.answers: collections.Counter[int] = collections.Counter()
        self._deployment, self._secret = deployment, secret
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the last ones be answered."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stopping.wait(0.1):
            # The same key until it is answered: an order whose answer was lost is not a second one.
            body, key = order(), uuid.uuid4().hex
            code = 0
            while code != 201 and not (code and self._stopping.is_set()):
                code = self._deployment.order(self._secret, body, key)
                self.answers[code] += 1
                if code != 201:
                    time.sleep(0.3)
