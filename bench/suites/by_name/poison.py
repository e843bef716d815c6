"""The relay beside rows that cannot be published: 10,000 good rows with ten of those."""

import time
from collections.abc import Callable, Mapping

from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground, until
from bench.load import facts
from bench.suites.relay import QUEUE
from shared.bus import outbox
from shared.bus.contract.message import Message

WITHOUT, WITH = "good rows alone", "with ten that cannot be published"
ROWS = 10_000
BIG = 16 * 1024 * 1024  # what RabbitMQ 4 takes; 3.10 is told to


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("poison")
    with ground() as on:
        # Rows as a release from before the bounds left them.
        with on.engine.begin() as connection:
            connection.execute(text("ALTER TABLE outbox DROP CONSTRAINT ck_outbox_short_strings"))
        if on.servers.broker is not None:
            on.servers.broker.evaluate(f"application:set_env(rabbit, max_message_size, {BIG})")
        contenders = [
            Contender(WITHOUT, lambda: _relay(on, [])),
            Contender(WITH, lambda: _relay(on, _poison())),
        ]
        result.series = alternate(contenders, say)
    result.counted.append("Each good row reached the notifier's queue once; the others are parked.")
    without, with_ = result.median(WITHOUT, "rows/s"), result.median(WITH, "rows/s")
    result.at_least("with them against without", 0.8, with_ / without, "x")
    return result


def _poison() -> list[Message]:
    base = list(facts.recorded(10))
    changes = (
        {"correlation_id": "x" * 256},
        {"correlation_id": "😀" * 64},
        {"traceparent": "x" * 200_000},
        {"exchange": "gone"},
        {"exchange": "gone too"},
        {"routing_key": "nowhere"},
        {"routing_key": "nowhere.either"},
        {"body": b"x" * (BIG + 1)},
        {"exchange": "commands", "routing_key": "kyc.decide"},
        {"exchange": "dead", "routing_key": "orders.intake"},
    )
    return [replace(one, **change) for one, change in zip(base, changes, strict=True)]


def _relay(on: Ground, poison: list[Message]) -> Mapping[str, float]:
    on.empty("outbox")
    on.purge(QUEUE)
    relay = on.start_service("relay")
    _fill(on, list(facts.recorded(1_000)))
    until(lambda: on.count("outbox") == 0, "the relay is warm")
    on.purge(QUEUE)
    good = list(facts.recorded(ROWS))
    for place, one in enumerate(poison):
        good.insert(place * ROWS // 10, one)
    begin = _fill(on, good)
    until(lambda: _fresh(on) <= 0, f"{ROWS} rows are relayed", look_every=0.01)
    seconds = time.monotonic() - begin
    until(lambda: on.count("outbox WHERE parked_at IS NOT NULL") == len(poison), "parked")
    on.stop(relay)
    held = on.depth(QUEUE)
    if held != ROWS:
        raise RuntimeError(f"{ROWS} good rows were relayed, and {held} messages are in {QUEUE}")
    return {"rows/s": ROWS / seconds}


def _fresh(on: Ground) -> int:
    return on.count("outbox WHERE parked_at IS NULL")


def _fill(on: Ground, messages: list[Message]) -> float:
    """Write rows in one transaction, past the checks; returns when it was committed."""
    check = outbox.check
    outbox.check = lambda _: None
    try:
        with Session(on.engine) as session:
            for start in range(0, len(messages), 1_000):
                outbox.add(session, messages[start : start + 1_000])
            session.commit()
    finally:
        outbox.check = check
    return time.monotonic()
