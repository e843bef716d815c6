"""The console ends dead letters by itself, and says so on its page of metrics."""

import os
import sys
from datetime import UTC, datetime, timedelta

from shared.bus.contract import topology
from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from tests.integration.arrange import depth, get, order_created, until
from tests.integration.ops.dead_letters.test_dead_letters import bury
from tests.zygote.forks import spawn


def test_the_console_discards_what_is_over(settings, tmp_path):
    bury(settings.amqp_url, order_created(), failed_at=datetime.now(UTC) - timedelta(days=91))
    pages, metrics, log = Port(), Port(), tmp_path / "console.log"

    def start():
        return spawn(
            (sys.executable, "-m", "services.ops.console"),
            environment=os.environ
            | {
                "AMQP_URL": as_service(settings.amqp_url, "ops"),
                "DATABASE_URL": as_service(settings.database_url, "ops"),
                "OPS_PORT": str(pages.number),
                "METRICS_PORT": str(metrics.number),
            },
            log=log,
            directory=ROOT,
        )

    def told():
        return get(f"{Address(metrics)}/metrics").text

    process = Start("console", start, (pages, metrics), log, LISTEN_SECONDS).wait()
    try:
        until(lambda: depth(settings.amqp_url, topology.ORDERS_INTAKE.dead) == 0, "discarded")
        until(
            lambda: 'fellow_retention_removed_total{place="dead_letters"} 1.0' in told(), "counted"
        )
    finally:
        stop(process, 10)
        pages.release()
        metrics.release()
