"""What the integration tests arrange, and how they wait."""

import hashlib
import hmac
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from shared.bus.broker import declaration, queue_counts
from shared.bus.broker.addresses import credentials
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import journal, topology
from shared.bus.contract.events import (
    CustomerDetails,
    Event,
    OrderCreated,
    OrderStatusChanged,
    TrackingStatus,
    decode,
)
from shared.bus.contract.message import Message, Received, message_for, sharded
from shared.config.settings import Settings
from shared.db.models import Account, KycApplication, Order, OutboxMessage
from shared.http.lanes import Lane, Lanes
from shared.ids import new_id
from shared.security import tokens

T = TypeVar("T")
PATIENCE = 120.0  # bounds a failure; nothing passes or fails by how long it took


def until(look: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Wait until `look` finds something true.

    One that gets no answer, or not yet a file, has found nothing; the last such error is told.
    """
    began, failed = time.monotonic(), None
    while (waited := time.monotonic() - began) < seconds:
        try:
            found, failed = look(), None
        except (OSError, httpx.TransportError) as error:
            found, failed = None, error
        if found:
            return found
        # A look may open a connection; who has waited for long can wait a little longer.
        time.sleep(min(0.02 + waited / 5, 0.25))
    raise AssertionError(f"{what}: not within {seconds:g} s") from failed


def join(threads: Iterable[threading.Thread]) -> None:
    """Wait until threads have ended: for all together no longer than for one."""
    ends = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
        assert not thread.is_alive()


def get(url: str, **more: Any) -> httpx.Response:
    """Fetch a page, however long a busy machine takes for it; `more` as of `httpx.get`."""
    return httpx.get(url, timeout=PATIENCE, **more)


def access_token(account_id: UUID) -> str:
    """One of the version before, which has no session: nobody need sign in."""
    return tokens.make(account_id, "access", datetime.now(UTC)).text


@contextmanager
def only_read(engine: Engine) -> Iterator[None]:
    """The database takes no writes, as a standby or a primary that was demoted."""
    name = engine.url.database
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        setting = f'ALTER DATABASE "{name}" SET default_transaction_read_only = '
        connection.exec_driver_sql(f"{setting}on")
        connection.exec_driver_sql(others)
        try:
            yield
        finally:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            connection.exec_driver_sql(f"{setting}off")
            connection.exec_driver_sql(others)


def workers(pid: int) -> list[int]:
    """The process ids of gunicorn's workers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def by_each_worker(pid: int, look: Callable[[], T], count: int = 2) -> list[T]:
    """What `look` finds at each of gunicorn's workers, once all of them run.

    Whichever wakes first takes a connection, and on a busy machine one may take dozens in a row;
    so that all but one stand still meanwhile.

    Args:
        pid: of gunicorn itself.
        look: asks by new connections, and waits for the answers.
        count: of the workers, as WEB_CONCURRENCY says.

    Raises:
        AssertionError: a worker has ended meanwhile, so that its successor may have answered.
    """
    every = until(
        lambda: found if len(found := workers(pid)) == count else None, f"{count} workers run"
    )
    found = []
    for asked in every:
        with ExitStack() as stopped:
            for other in set(every) - {asked}:
                stopped.enter_context(_standing_still(other))
            found.append(look())
    assert workers(pid) == every, "a worker has ended while it was to stand still or to answer"
    return found


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    try:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        # Until it has stopped it may still take a connection; one that has ended takes none.
        until(lambda: _state(pid) in "TZX", f"{pid} stands still")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    """As proc(5) has it; X also for one that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def resident(pid: int) -> int:
    """What a process has in memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def account(db: Session, *, status: str | None = None, **changes: Any) -> Account:
    """An account with a proved address; with `status`, and an application of that status."""
    made = Account(
        id=changes.get("id") or new_id(),
        company_name=changes.get("company_name", "Kettle & Co"),
        email=changes.get("email", f"{new_id()}@kettle.example"),
        password_hash="-",
        email_verified_at=datetime.now(UTC),
    )
    db.add(made)
    db.flush()
    if status is not None:
        db.add(application(made, status, changes.get("number", f"RC-{new_id()}")))
    db.commit()
    return made


def application(business: Account, status: str = "pending", number: str = "RC-2") -> KycApplication:
    """A KYC application of a business, to be added."""
    return KycApplication(
        account_id=business.id,
        business_registration_number=number,
        business_address="1 Broad St",
        contact_person_details='"Ada"',
        status=status,
    )


def received(event: Event, **changes: Any) -> Received[Any]:
    """A message as a handler gets it."""
    message = message_for(event, source="tests", correlation_id=new_id())
    values = {
        "id": new_id(),
        "type": event.TYPE,
        "time": message.time,
        "correlation_id": message.correlation_id,
        "data": event,
    }
    return Received(**(values | changes))


def order_created(account_id: Any = None, **changes: Any) -> OrderCreated:
    values: dict[str, Any] = {
        "order_id": new_id(),
        "account_id": account_id or new_id(),
        "customer_details": CustomerDetails(name="Zoë Ade", email="zoe@shop.example", phone="+234"),
        "item_summary": "2 × blue kettle",
        "address": "12 Marina Road\nLagos",
    }
    return OrderCreated(**(values | changes))


def status_changed(order: OrderCreated, status: TrackingStatus, note: str = "") -> Any:
    return OrderStatusChanged(
        order_id=order.order_id, account_id=order.account_id, tracking_status=status, note=note
    )


@contextmanager
def written() -> Iterator[list[str]]:
    """What is written meanwhile, by whichever engine: "a row" for each statement, "committed"."""
    found: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        kind = statement.split(maxsplit=1)[0]
        if kind in ("INSERT", "UPDATE", "DELETE"):
            found.append("a row")

    def commit(_: object) -> None:
        if found and found[-1] == "a row":
            found.append("committed")

    engines = {"before_cursor_execute": note, "commit": commit}
    for name, told in engines.items():
        event.listen(Engine, name, told)
    try:
        yield found
    finally:
        for name, told in engines.items():
            event.remove(Engine, name, told)


def facts(session: Session, *types: str) -> list[Any]:
    """The facts that wait in the outbox, in the order in which they were told.

    Args:
        session: looks anew.
        types: of the facts wanted; everything without.
    """
    session.rollback()
    wanted = select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
    if types:
        wanted = wanted.where(OutboxMessage.type.in_(types))
    return [decode(type_, body) for type_, body in session.execute(wanted)]


def declare(amqp_url: str, shards: int = 1) -> list[str]:
    """Declare the topology, as the administrator: a deployment's step.

    Returns:
        The shards that there are beyond these.
    """
    with Connection(amqp_url) as connection:
        declaration.declare(connection, shards)
        return declaration.retire(connection, shards)


def accounts_of_shards(shards: int) -> list[UUID]:
    """An account for each of so many shards, in their order."""
    found: dict[int, UUID] = {}
    while len(found) < shards:
        id_ = new_id()
        found.setdefault(topology.shard_of(str(id_), shards), id_)
    return [found[number] for number in range(shards)]


def orders_of_shards(shards: int, each: int = 1) -> list[Message]:
    """Orders of one account in each of so many shards, one after another."""
    return [
        message_for(order_created(account), source="tests", correlation_id="story")
        for account in accounts_of_shards(shards)
        for _ in range(each)
    ]


def in_shards(shards: int, messages: Iterable[Message]) -> list[Message]:
    """Messages as a publisher sends them that knows so many shards."""
    return [sharded(message, shards) for message in messages]


def publish(amqp_url: str, *messages: Message) -> None:
    """Publish messages as the product would, with confirms; into the journal too."""
    kept: dict[str, list[bytes]] = {}
    for message in messages:
        if place := journal.place(message.exchange, message.routing_key):
            kept.setdefault(place, []).append(journal.event(message))
    batches = [journal.batch(events, "tests", place) for place, events in kept.items()]
    with Connection(amqp_url) as connection:
        channel: Any = connection.default_channel
        for message in (*messages, *batches):
            channel.basic_publish_confirm(
                AmqpMessage(
                    message.body,
                    message_id=message.message_id,
                    type=message.type,
                    correlation_id=message.correlation_id,
                    delivery_mode=2,
                    application_headers=message.headers(),
                    **_made_by(amqp_url, message.exchange),
                ),
                exchange=message.exchange,
                routing_key=message.routing_key,
                mandatory=True,
            )


def publish_raw(amqp_url: str, exchange: str, key: str, body: bytes, **properties: Any) -> None:
    """Publish anything at all, as a stranger's tool might."""
    with Connection(amqp_url) as connection:
        channel: Any = connection.default_channel
        channel.basic_publish_confirm(
            AmqpMessage(body, **_made_by(amqp_url, exchange) | properties),
            exchange=exchange,
            routing_key=key,
            mandatory=True,
        )


def _made_by(amqp_url: str, exchange: str) -> dict[str, str]:
    """A copy bears the name of who makes it, or no consumer takes it."""
    ladder = [rung.name for rung in topology.RETRY_DELAYS]
    is_copy = exchange in ("", topology.DEAD, *ladder)
    return {"user_id": credentials(amqp_url)[0]} if is_copy else {}


def ago(**much: float) -> datetime:
    """A time that is past, as of this call: a module may have been imported an hour before.

    Args:
        **much: as of a `timedelta`; nothing for the present.
    """
    return datetime.now(UTC) - timedelta(**much)


def ahead(**much: float) -> datetime:
    """A time to come; the arguments as those of `ago`."""
    return datetime.now(UTC) + timedelta(**much)


def an_order(account_id: UUID, **changes: Any) -> Order:
    """An order as the recorder leaves it, to be added.

    Args:
        account_id: whose.
        **changes: columns that are otherwise.
    """
    id_, now = changes.pop("id", None) or new_id(), datetime.now(UTC)
    columns = {
        "customer_name": "Zoë Ade",
        "customer_email": "zoe@shop.example",
        "customer_phone": "",
        "item_summary": "a kettle",
        "address": "Lagos",
        "tracking_status": "PENDING",
        "status_at": now,
        "status_event_id": id_,
        "accepted_at": now,
    }
    return Order(id=id_, account_id=account_id, **columns | changes)


@contextmanager
def lanes(threads: int = 1) -> Iterator[Lanes]:
    """Where the handlers of an app run."""
    made = Lanes(ordinary=Lane("ordinary", threads, 8), passwords=Lane("passwords", threads, 8))
    try:
        yield made
    finally:
        made.shutdown()


def depth(amqp_url: str, queue: str) -> int:
    """How many messages wait in a queue."""
    return sum(depths(amqp_url, [queue]))


def depths(amqp_url: str, queues: Iterable[str]) -> list[int]:
    """How many messages wait in each of some queues, asked by one connection."""
    with Connection(amqp_url) as connection:
        return [queue_counts.of(connection.default_channel, queue).ready for queue in queues]


def take(amqp_url: str, queue: str) -> Any:
    """Take one message out of a queue; None when it is empty."""
    with Connection(amqp_url) as connection:
        return connection.default_channel.basic_get(queue, no_ack=True)


def headers(message: Any) -> dict[str, Any]:
    """The headers of a message that was taken, without the broker's own count."""
    found: dict[str, Any] = message.headers or message.properties.get("application_headers") or {}
    return {name: value for name, value in found.items() if name != "x-delivery-count"}


@contextmanager
def consuming(settings: Settings, *subscriptions: Subscription) -> Iterator[list[Consumer]]:
    """Run subscriptions in threads, as a service would.

    At the end everything must have been acknowledged: what was not would be back in the queue.
    """

    def settled() -> bool:
        # Twice: what is on its way to a consumer is neither in the queue nor in its hand. That
        # takes longer on a busy machine, as the look does.
        began = time.monotonic()
        if not quiet():
            return False
        time.sleep(max(0.2, 2 * (time.monotonic() - began)))
        return quiet()

    def quiet() -> bool:
        return not any(depths(broker, queues)) and not any(
            consumer.unacknowledged for consumer in consumers
        )

    broker = settings.amqp_url.rpartition(";")[2]  # of several addresses the last one answers
    queues = [s.queue.name for s in subscriptions]
    queues += [shard.name for s in subscriptions for shard in topology.shards(s.shards)]
    stopping = threading.Event()
    consumers = [
        Consumer(settings.amqp_url, settings.amqp_heartbeat, subscription, stopping)
        for subscription in subscriptions
    ]
    threads = [threading.Thread(target=consumer.run, daemon=True) for consumer in consumers]
    for thread in threads:
        thread.start()
    try:
        yield consumers
        until(settled, "everything acknowledged")
    finally:
        stopping.set()
        join(threads)
    assert not any(depths(broker, queues))


def sign(secret: str, body: bytes) -> dict[str, str]:
    """The headers of a signed request."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-API-Key": secret,
        "X-Webhook-Signature": signature,
    }
