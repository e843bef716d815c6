"""Virtual hosts for the tests: made some at a time, and used again where nobody has changed them.

To make one, declare the topology in it and delete it again is most of what a short test costs the
broker. To see that one is as it was, and to empty it, costs a tenth of that.
"""

import re
from collections import deque
from itertools import count

from kombu import Connection

from shared.bus.broker import declaration
from shared.bus.contract import topology
from stack.servers.sources import Broker

AT_ONCE = 16
_numbers = count()

# How many are connected, and all that is set up in a virtual host as a number: its queues,
# exchanges, bindings, policies and limits, and the rights in it.
STATE = """V = <<"{}">>, {{
  length(rabbit_connection_tracking:list(V)),
  erlang:phash2([
    lists:sort(rabbit_amqqueue:list(V)),
    lists:sort(rabbit_exchange:list(V)),
    lists:sort(rabbit_binding:list(V)),
    lists:sort(rabbit_runtime_parameters:list(V)),
    lists:sort(rabbit_auth_backend_internal:list_vhost_permissions(V)),
    lists:sort(rabbit_auth_backend_internal:list_vhost_topic_permissions(V))
  ], 1 bsl 32)
}}"""


class Vhosts:
    """Gives out virtual hosts of a broker, each to one at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._bare: list[str] = []
        self._used: list[str] = []
        # In the order of their giving back: whoever was there has the longest time to go.
        self._declared: deque[str] = deque()
        self._states: dict[str, int | None] = {}

    def take_bare(self) -> str:
        """One with nothing in it."""
        if not self._bare:
            self._bare = [f"test{next(_numbers)}" for _ in range(AT_ONCE)]
            self._broker.admit(self._bare, remove=self._used)
            self._used = []
        return self._bare.pop()

    def take(self) -> str:
        """One with the topology and nothing else."""
        while self._declared:
            name = self._declared.popleft()
            state = self._states.pop(name)
            # Who is still connected may come back, and find another test.
            if state is not None and self._look(name) == (0, state):
                self._empty(name)
                return self._remember(name)
            self._used.append(name)
        name = self.take_bare()
        with Connection(self._broker.url(name)) as connection:
            declaration.declare(connection)
        return self._remember(name)

    def give_back(self, name: str) -> None:
        """Say that a test is done with it."""
        (self._declared if name in self._states else self._used).append(name)

    def _remember(self, name: str) -> str:
        self._states[name] = self._look(name)[1]
        return name

    def _look(self, name: str) -> tuple[int, int | None]:
        try:
            connected, state = re.findall(r"\d+", self._broker.evaluate(STATE.format(name)))
        except RuntimeError:  # another version's broker has other functions: nothing is used again
            return 0, None
        return int(connected), int(state)

    def _empty(self, name: str) -> None:
        with Connection(self._broker.url(name)) as connection:
            channel = connection.default_channel
            # From where a message may come first: a rung hands on to a queue.
            for queue in sorted(topology.QUEUES, key=lambda q: not q.name.startswith("retry.")):
                if queue.name != topology.JOURNAL.name:
                    channel.queue_purge(queue.name)
            # A stream cannot be purged, and its count of messages is some seconds old.
            channel.queue_delete(topology.JOURNAL.name)
            declaration.declare(connection)
