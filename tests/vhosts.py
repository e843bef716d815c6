"""Virtual hosts for the tests: made some at a time, and used again where nobody has changed them.

To make one, declare the topology in it and delete it again is most of what a short test costs the
broker. To see that one is as it was, and to empty it, costs a tenth of that.
"""

import re
import subprocess
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from kombu import Connection

from shared.bus.broker import declaration
from shared.bus.contract import topology
from stack.servers.sources import Broker

AT_ONCE = 16
NO_ANSWER = (RuntimeError, subprocess.TimeoutExpired)
_numbers = count()

# How many are connected; all that is set up in a virtual host as a number: its queues, exchanges,
# bindings, policies and limits, and the rights in it; and the queues in which there is something,
# in hand or on its way to a dead queue included. `rabbitmqctl` counts are some seconds old.
STATE = """V = <<"{}">>, Queues = lists:sort(rabbit_amqqueue:list(V)), {{
  length(rabbit_connection_tracking:list(V)),
  erlang:phash2([
    Queues,
    lists:sort(rabbit_exchange:list(V)),
    lists:sort(rabbit_binding:list(V)),
    lists:sort(rabbit_runtime_parameters:list(V)),
    lists:sort(rabbit_auth_backend_internal:list_vhost_permissions(V)),
    lists:sort(rabbit_auth_backend_internal:list_vhost_topic_permissions(V))
  ], 1 bsl 32),
  [binary_to_list(element(4, amqqueue:get_name(Queue))) || Queue <- Queues,
    case amqqueue:get_type(Queue) of
      rabbit_stream_queue ->
        maps:get(committed_chunk_id, osiris:get_stats(amqqueue:get_pid(Queue))) >= 0;
      rabbit_quorum_queue ->
        {{ok, {{_, Count}}, _}} =
          ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1, 60000),
        Count > 0
    end]
}}"""


class State(NamedTuple):
    """What `STATE` finds."""

    connected: int
    set_up: int
    filled: Collection[str]


_QUEUES = tuple(queue.name for queue in topology.QUEUES)


def purge(connection: Connection, names: Collection[str] = _QUEUES) -> None:
    """Empty queues of the topology, but for the stream.

    Args:
        connection: to the broker.
        names: of the queues; all of them when not given.
    """
    # From where a message may come first: a rung hands on to a queue.
    for queue in sorted(topology.QUEUES, key=lambda q: not q.name.startswith("retry.")):
        if queue.name != topology.JOURNAL.name and queue.name in names:
            connection.default_channel.queue_purge(queue.name)


class Vhosts:
    """Gives out virtual hosts of a broker, each to one at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._bare: list[str] = []
        self._used: list[str] = []
        # In the order of their giving back: whoever was there has the longest time to go.
        self._declared: deque[str] = deque()
        self._states: dict[str, State | None] = {}

    def take_bare(self) -> str:
        """One with nothing in it."""
        self._remove_used()
        if not self._bare:
            names = [f"test{next(_numbers)}" for _ in range(AT_ONCE)]
            self._broker.admit(names)
            self._bare = names
        return self._bare.pop()

    def take(self) -> str:
        """One with the topology and nothing else."""
        self._remove_used()
        while self._declared:
            name = self._declared.popleft()
            before, now = self._states.pop(name), self._look(name)
            # Who is still connected may come back, and find another test.
            if before and now and (now.connected, now.set_up) == (0, before.set_up):
                if now.filled:
                    self._empty(name, now.filled)
                    now = self._look(name)
                if now and not now.filled:  # what was on its way from one to another is seen now
                    self._states[name] = now
                    return name
            self._used.append(name)
        name = self.take_bare()
        with Connection(self._broker.url(name)) as connection:
            declaration.declare(connection)
        self._states[name] = self._look(name)
        return name

    def give_back(self, name: str) -> None:
        """Say that a test is done with it."""
        (self._declared if name in self._states else self._used).append(name)

    def _remove_used(self) -> None:
        # Soon: the queues of one that nobody uses take a percent of a core. One that stays takes no
        # more than that, and one whose answer was not waited for may be gone.
        while self._used:
            name = self._used.pop()
            with suppress(*NO_ANSWER):
                self._broker.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"order-fellow">>)')

    def _look(self, name: str) -> State | None:
        try:
            found = self._broker.evaluate(STATE.format(name))
        except NO_ANSWER:  # another version's broker has other functions: nothing is used again
            return None
        connected, state = re.findall(r"\d+", found)[:2]
        return State(int(connected), int(state), re.findall(r'"(.*?)"', found))

    def _empty(self, name: str, filled: Collection[str]) -> None:
        with Connection(self._broker.url(name)) as connection:
            purge(connection, filled)
            if topology.JOURNAL.name in filled:  # a stream cannot be purged
                connection.default_channel.queue_delete(topology.JOURNAL.name)
                declaration.declare_queue(connection.default_channel, topology.JOURNAL)
