"""A running deployment of an older version becomes this one, by the steps of docs/deploying.md.

Orders go through the door all the while, and some of them under a key that is used twice, of which
a recorder of this version tells and a notifier of an older one knows nothing.
"""

import subprocess
import threading
import time
import uuid

from tests.machines.deployment import ROOT, Deployment, eventually, steps
from tests.machines.load import Load, order

QUEUES = (
    "docker compose exec rabbitmq rabbitmqctl list_queues --quiet --no-table-headers name messages"
)
PARKED = "SELECT count(*) FROM outbox WHERE parked_at IS NOT NULL"
SERVERS = "docker compose ps --quiet postgres rabbitmq door"


def play(deployment: Deployment, commit: str) -> None:
    """Run it.

    Args:
        deployment: a copy of the older version.
        commit: which that is.

    Raises:
        AssertionError: an order is missing, or there twice, or something was given up.
    """
    readme = subprocess.run(
        ("git", "show", f"{commit}:README.md"), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for line in steps(readme, "## Production"):
        deployment.shell(line)
    secret = deployment.secret()
    before = deployment.letters()
    load, repeats = Load(deployment, secret), _Repeats(deployment, secret)
    try:
        eventually(lambda: load.answers[201] >= 20)
        old, servers = load.answers.copy(), deployment.shell(SERVERS)
        deployment.take(ROOT)
        # The versions up to 0030 had a default.
        deployment.shell(
            "grep -q PUBLIC_URL .env || echo PUBLIC_URL=https://orders.example.com >> .env"
        )
        documented = (ROOT / "docs" / "deploying.md").read_text()
        for line in steps(documented, "## Upgrading"):
            deployment.shell(line)
        assert deployment.shell(SERVERS) == servers, "the upgrade replaced a server"
        assert load.answers[0] == 0, "a connection was refused during an upgrade"
        for line in steps(documented, "### Its servers"):
            deployment.shell(line)
        eventually(lambda: load.answers[201] >= old[201] + 100)
    finally:
        load.stop()
        repeats.stop()
    accepted = load.answers[201] + repeats.accepted
    eventually(lambda: deployment.letters() - before >= accepted)
    recorded, mailed = deployment.count(), deployment.letters() - before
    print(
        f"answers {dict(load.answers)}; accepted {accepted}, recorded {recorded}, mailed {mailed}, "
        f"keys used twice {repeats.accepted}"
    )
    assert accepted == recorded, "an order is missing, or there twice"
    queues = dict(
        line.split("\t") for line in deployment.shell(QUEUES).splitlines() if "\t" in line
    )
    dead = {name: count for name, count in queues.items() if name.endswith(".dead")}
    assert dead, queues
    assert set(dead.values()) == {"0"}, dead
    assert deployment.query(PARKED) == "0"
    print(deployment.shell("docker compose exec ops fellow doctor"))


class _Repeats:
    """Two orders under one key, again and again; the first is recorded, and the second told of."""

    def __init__(self, deployment: Deployment, secret: str) -> None:
        self.accepted = 0
        self._deployment, self._secret = deployment, secret
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def stop(self) -> None:
        """Let the last ones be answered."""
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._stopping.wait(0.3):
            key = uuid.uuid4().hex
            first, second = order(), order()
            while self._deployment.order(self._secret, first, key) != 201:
                time.sleep(0.3)
            self.accepted += 1
            self._deployment.order(self._secret, second, key)
