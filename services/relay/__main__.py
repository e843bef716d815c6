"""`python -m services.relay`: the relay process."""

import asyncio
import signal
import sys

import structlog
import uvloop

from services.relay.metrics import watch
from services.relay.relay import Relay
from shared import gc_tuning, health
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.config.settings import Settings
from shared.telemetry import heartbeat, logs, metrics, tracing

log = structlog.get_logger()


async def _run(config: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    relay = Relay(config)

    async def beat() -> None:
        while True:
            if relay.is_turning():
                health.beat(config.health_file, relay.standings)
            await asyncio.sleep(1)

    beating = asyncio.create_task(beat())
    telling = asyncio.create_task(heartbeat.run_heartbeat("relay", lambda: relay.standings))
    log.info("started")
    await relay.run(stopping)
    beating.cancel()
    telling.cancel()
    log.info("stopped")


def main() -> int:
    """Relay until SIGTERM or SIGINT; returns the exit code."""
    try:
        config = begin("relay")
        watch(config)
        metrics.serve(config)
        tracing.configure(config, "relay")
    except ConfigurationError as error:
        print(f"relay cannot start. {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    logs.configure(config, "relay")
    gc_tuning.freeze()
    uvloop.run(_run(config))
    tracing.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
