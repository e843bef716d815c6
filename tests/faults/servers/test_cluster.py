"""Three RabbitMQ nodes with the files of docker-compose.cluster.yml, all in `AMQP_URL` and no
balancer before them: the leader killed, two killed, one cut off from the others, one replaced."""

import re
import shlex
import shutil

import pytest

from stack.folders import ROOT
from stack.servers.rabbitmq import READY_SECONDS, Cluster, RabbitMQ
from stack.servers.sources import install_missing
from tests.integration.arrange import until
from tests.machines.deployment import steps


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("cluster")
    return tuple(base / f"node{number}" for number in range(3))


@pytest.fixture(scope="module")
def nodes(folders):
    install_missing()
    cluster = Cluster(folders)
    made = [RabbitMQ(folder, cluster) for folder in cluster.folders]
    try:
        made[0].start()
        for node in made[1:]:
            node.launch()
        for node in made[1:]:
            node.wait()
        made[0].control("await_online_nodes", "3")
        made[0].admit()
        yield made
    finally:
        for node in reversed(made):
            node.kill()
            node.close()


@pytest.fixture(scope="module")
def bus_urls(nodes):
    return [node.url() for node in nodes]


@pytest.fixture(autouse=True)
def all_are_back(nodes, stand, whole):
    yield
    until(lambda: "3" in nodes[0].evaluate(RUNNING), "three nodes run", READY_SECONDS)


RUNNING = "length(rabbit_nodes:all_running())"


def lead(node, *queues):
    """Have a node lead queues: one that had no time to answer the others leads none any more."""
    for queue in queues:

        def is_leader(queue=queue):
            node.evaluate(LEAD.format(queue=queue))
            return node.name in node.evaluate(LEADER.format(queue=queue))

        until(is_leader, f"{queue} is led by {node.name}")


def test_the_leader_is_killed(stand, nodes):
    with stand.load() as load:
        stand.go_on(2)
        lead(nodes[0], "orders.intake", "notifier.orders")
        nodes[0].kill()
        stand.go_on(5)
        nodes[0].start()
        stand.go_on(2)
    stand.settle(load).accepted_all()


def test_two_of_three_are_killed_and_come_back(stand, nodes):
    """The one that is left has no majority and takes nothing: orders go to the outbox."""
    with stand.load() as load:
        stand.go_on(1)
        nodes[0].kill()
        nodes[1].kill()
        stand.go_on(8)
        for node in nodes[:2]:
            node.launch()
        for node in nodes[:2]:
            node.wait()
        stand.go_on(2)
    stand.settle(load).accepted_all()


def test_a_node_is_cut_off_from_the_other_two(stand, nodes):
    with stand.load() as load:
        stand.go_on(1)
        lone, others = nodes[2], nodes[:2]
        lead(lone, "orders.intake", "notifier.orders")
        cut_off(lone, others)
        until(lambda: "2" in others[0].evaluate(RUNNING), "the others know it is gone")
        stand.go_on(8)
        heal(lone, others)
        stand.go_on(2)
    stand.settle(load).accepted_all()


LEAD = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
    "rabbit_quorum_queue:transfer_leadership(Q, node())"
)
LEADER = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
    "amqqueue:get_leader(Q)"
)


def cut_off(lone, others):
    """Neither side speaks to the other: each has another cookie for it (erlang:set_cookie/2)."""
    lone.evaluate(both(others, "wrong"))


def heal(lone, others):
    lone.evaluate(both(others, None))
    # The one that was cut off has paused, and starts again now.
    until(lambda: "3" in others[0].evaluate(RUNNING), "the cluster is whole", READY_SECONDS)


def both(others, cookie):
    value = f"'{cookie}'" if cookie else "erlang:get_cookie()"
    names = ", ".join(f"'{node.name}'" for node in others)
    return f"[begin erlang:set_cookie(N, {value}), erlang:disconnect_node(N) end || N <- [{names}]]"


def test_they_have_what_the_compose_file_mounts(nodes):
    for node in nodes:
        for setting, value in (("cluster_partition_handling", "pause_minority"),
                               ("consumer_timeout", "2592000000")):  # fmt: skip
            said = node.evaluate(f"application:get_env(rabbit, {setting})")
            assert said == f"{{ok, {value}}}", node.name


def test_a_node_is_replaced(stand, nodes, folders):
    """Its volume is gone: by the printed steps all is three times there again."""
    lost = nodes[2]
    with stand.load() as load:
        stand.go_on(1)
        # Before one is upgraded it is asked whether the others are enough.
        told("### Upgrading the brokers", nodes, only="docker compose exec rabbitmq3 ")
        lost.kill()
        shutil.rmtree(folders[2] / "mnesia")
        stand.go_on(2)
        told("### A broker whose volume is gone", nodes)
        stand.go_on(2)
    stand.settle(load).accepted_all()
    for queue in ("orders.intake", "notifier.orders", "journal"):
        until(lambda queue=queue: len(members(nodes[0], queue)) == 3, f"three have {queue}")


def members(node, queue):
    said = node.evaluate(MEMBERS.format(queue=queue))
    return set(re.findall(r"'(\S+?)'", said))


MEMBERS = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
    "maps:get(nodes, amqqueue:get_type_state(Q))"
)


def told(heading, nodes, only=""):
    """Do what a block of docs/deploying.md says.

    Args:
        heading: it stands below that.
        nodes: all three.
        only: of the lines, those that begin so.
    """
    by_service = dict(zip(("rabbitmq", "rabbitmq2", "rabbitmq3"), nodes, strict=True))
    lines = steps((ROOT / "docs" / "deploying.md").read_text(), heading)
    lines = [line.partition("#")[0] for line in lines if line.startswith(only)]
    assert lines
    for line in lines:
        verb, *words = shlex.split(line)[2:]
        if verb == "up":
            by_service[words[-1]].start()
        else:
            service, program, *arguments = words
            named = [
                by_service[word.removeprefix("rabbit@")].name if "@" in word else word
                for word in arguments
            ]
            by_service[service].control(*named, program=program)
