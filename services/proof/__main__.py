"""`python -m services.proof`: proves each minute that orders are recorded and emailed."""

import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

from services.proof import metrics as proof_metrics
from services.proof.business import Business, UnprovedError
from services.proof.proving import SCHEMES, describe_error, heartbeat_state, prove
from services.proof.sink import Sink
from shared import health
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.config.settings import Settings
from shared.db.session import transaction
from shared.service import stop_on_signals
from shared.telemetry import heartbeat, logs, metrics

NAME = "services.proof"
HTTP_SECONDS = 10.0

log = structlog.get_logger()


class Prover:
    """Runs one proof for each scheme in each round.

    Args:
        config: the `proof_*` settings, and `database_url` for its password.
        sink: receives the emails.

    Attributes:
        standing: the state of each scheme, for the heartbeat.
    """

    def __init__(self, config: Settings, sink: Sink) -> None:
        self._sink = sink
        self._http = httpx.Client(
            base_url=f"{config.proof_url}/api/v1", timeout=HTTP_SECONDS, trust_env=False
        )
        password = urlsplit(config.database_url).password or ""
        self._business = Business(self._http, sink, password)
        self._proved_at: dict[str, datetime] = {}
        for scheme in SCHEMES:
            # The start stands for the first success: the alert must leave time for two rounds, and
            # a missing series could not be told from a missing process.
            proof_metrics.proved_at.labels(scheme).set_to_current_time()
        self.standing: dict[str, Mapping[str, Any]] = {
            name: heartbeat_state(None, None) for name in SCHEMES
        }
        """The state of each scheme, for the heartbeat."""

    def round(self) -> None:
        """Send an order by each scheme, and record the outcome."""
        for scheme in SCHEMES:
            error: UnprovedError | None = None
            try:
                prove(scheme, self._http, self._business, self._sink)
            except UnprovedError as unproved:
                error = unproved
            except Exception as other:
                log.exception("proof_failed", scheme=scheme)
                error = UnprovedError("proof", describe_error(other))
            if error is None:
                self._proved_at[scheme] = datetime.now(UTC)
                proof_metrics.proved_at.labels(scheme).set_to_current_time()
            else:
                log.warning("not_proved", scheme=scheme, step=error.step, reason=str(error))
            outcome = "proved" if error is None else error.step
            proof_metrics.rounds.labels(scheme, outcome).inc()
            self.standing[scheme] = heartbeat_state(self._proved_at.get(scheme), error)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, 2 for a bad configuration."""
    try:
        config = begin("proof")
        metrics.serve(config)
        logs.configure(config, NAME)
        sink = Sink(config.host, config.proof_port)
    except (ConfigurationError, OSError) as error:
        print(f"{NAME} cannot start. {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    stopping = threading.Event()
    stop_on_signals(stopping)
    sink.start()
    prover = Prover(config, sink)
    proof_metrics.period.set(config.proof_seconds)
    rounds = threading.Thread(
        target=_run_rounds, args=(prover, config.proof_seconds, stopping), daemon=True
    )
    rounds.start()
    _beat(prover, config.health_file, rounds, stopping)
    return 0 if stopping.is_set() else 1


def _run_rounds(prover: Prover, seconds: float, stopping: threading.Event) -> None:
    while not stopping.is_set():
        began = time.monotonic()
        prover.round()
        stopping.wait(max(0.0, seconds - (time.monotonic() - began)))


def _beat(
    prover: Prover, health_file: str, rounds: threading.Thread, stopping: threading.Event
) -> None:
    heartbeat_writer, pulse = heartbeat.HeartbeatWriter(NAME, prover.standing), heartbeat.Pulse()
    pulse.note()  # the first is not late yet
    due = time.monotonic()
    while rounds.is_alive() and not stopping.wait(1.0):
        health.beat(health_file, (), pulse.wrong)
        if time.monotonic() < due:
            continue
        due = time.monotonic() + heartbeat.SECONDS
        try:
            with transaction() as session:
                heartbeat_writer.beat(session)
            pulse.note()
        except Exception as error:  # noqa: BLE001 - the next heartbeat replaces it
            log.warning("no_heartbeat", error=type(error).__name__)


if __name__ == "__main__":
    sys.exit(main())
