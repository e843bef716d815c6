"""Runs a consumer process: its subscriptions and periodic jobs, from start to stop."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import structlog
from sqlalchemy.orm import Session

from shared import gc_tuning, health
from shared.bus.broker.addresses import credentials
from shared.bus.consume import inbox
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.rehearsals import requests
from shared.bus.consume.subscription import Subscription
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.config.settings import Settings
from shared.db.listening import Listener
from shared.db.session import make_engine
from shared.periodic import Periodic, attempt, pause
from shared.telemetry import heartbeat, logs, metrics, tracing

STOP_SECONDS = 8.0
"""How long the current batch may take after a stop; the documented limit is 10."""
STUCK_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wiring:
    """The subscriptions and jobs of a process.

    Attributes:
        subscriptions: each gets a thread and a connection.
        jobs: each gets a thread.
        uses: for the heartbeat; see `shared.telemetry.heartbeat.HeartbeatWriter`.
    """

    subscriptions: Sequence[Subscription]
    jobs: Sequence[Periodic] = ()
    uses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def run(name: str, wire: Callable[[Settings], Wiring]) -> int:
    """Run a consumer process until SIGTERM or SIGINT.

    Args:
        name: the service, such as `services.kyc`.
        wire: called once, with the settings, before anything starts.

    Returns:
        The exit code: 0 after a stop, 1 if a thread died, 2 for an invalid configuration.
    """
    try:
        config = begin(name.rpartition(".")[2])
        metrics.serve(config)
        tracing.configure(config, name)
    except ConfigurationError as error:
        print(f"{name} cannot start. {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    logs.configure(config, name)
    wiring = wire(config)
    stopping = threading.Event()
    stop_on_signals(stopping)
    consumers = [
        Consumer(config.amqp_url, config.amqp_heartbeat, subscription, stopping)
        for subscription in wiring.subscriptions
    ]
    inboxes = {subscription.consumer for subscription in wiring.subscriptions}
    jobs = [
        *wiring.jobs,
        *(_pruning(consumer) for consumer in sorted(inboxes)),
        _rehearsing(config, wiring.subscriptions),
        Periodic(
            "heartbeat",
            heartbeat.SECONDS,
            heartbeat_of(heartbeat.HeartbeatWriter(name, wiring.uses), consumers),
        ),
    ]
    threads = [
        threading.Thread(target=consumer.run, name=consumer.subscription.queue.name, daemon=True)
        for consumer in consumers
    ] + [
        threading.Thread(target=_repeat, args=(job, stopping), name=job.name, daemon=True)
        for job in jobs
    ]
    gc_tuning.freeze()
    for thread in threads:
        thread.start()
    log.info("started", queues=[consumer.subscription.queue.name for consumer in consumers])
    died = _watch(threads, consumers, stopping, config.health_file)
    stopping.set()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    tracing.flush()
    log.info("stopped")
    sys.stderr.flush()
    # A busy handler must not delay the exit: its messages are unacknowledged and redelivered.
    os._exit(1 if died else 0)


def stop_on_signals(stopping: threading.Event) -> None:
    """Set `stopping` at SIGTERM or SIGINT."""

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _watch(
    threads: Sequence[threading.Thread],
    consumers: Sequence[Consumer],
    stopping: threading.Event,
    health_file: str,
) -> bool:
    while not stopping.wait(1.0):
        dead = [thread.name for thread in threads if not thread.is_alive()]
        if dead:
            log.error("thread_died", threads=dead)
            return True
        now = time.monotonic()
        if all(now - consumer.last_turn < STUCK_SECONDS for consumer in consumers):
            health.beat(health_file, [consumer.standing for consumer in consumers])
    return False


def _repeat(job: Periodic, stopping: threading.Event) -> None:
    metrics.job_begins(job.name, job.seconds)
    while not stopping.is_set():
        attempt(job.name, job.once)
        job.wait(stopping, pause(job.seconds))


def heartbeat_of(
    heartbeat_writer: heartbeat.HeartbeatWriter, consumers: Sequence[Consumer]
) -> Callable[[Session], None]:
    """Return the job that writes the heartbeat of a process with these consumers."""

    def beat(session: Session) -> None:
        queues = {
            consumer.subscription.queue.name: heartbeat.QueueFigures(
                consumer.standing.status,
                handled=consumer.handled,
                unacked=consumer.unacknowledged,
                reached=consumer.reached,
                reached_in=consumer.reached_in,
                where=consumer.standing.where,
            )
            for consumer in consumers
        }
        heartbeat_writer.beat(session, queues)

    return beat


def _rehearsing(config: Settings, subscriptions: Sequence[Subscription]) -> Periodic:
    engine, (user, _) = make_engine(config, is_pooled=False), credentials(config.amqp_url)
    answer = requests.answering(subscriptions, engine, user)
    listener = Listener(config.database_url, requests.CHANNEL, "rehearse-listen")
    return Periodic("rehearse", requests.SECONDS, answer, listener.wait)


def _pruning(consumer: str) -> Periodic:
    return Periodic(
        f"prune {consumer}", inbox.PRUNE_SECONDS, lambda session: inbox.prune(session, consumer)
    )
