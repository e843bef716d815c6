"""Who may not work is not ready, and says why; it lives all the same."""

import os
import sys

from sqlalchemy import make_url

from shared import health
from stack.folders import ROOT
from stack.processes import spawn, stop
from stack.servers.credentials import as_service
from stack.servers.ports import Port
from tests.integration.arrange import get, until
from tests.integration.conftest import running_ingress
from tests.integration.ops.console.running import running_console
from tests.integration.portal.conftest import running_portal


def with_another_password(url, service):
    found = make_url(as_service(url, service))
    return found.set(password="another").render_as_string(hide_password=False)


def says(url):
    answer = get(f"{url}/readyz")
    return answer.status_code, answer.json().get("reason", "")


def assert_is_ready_only_when_right(right, wrong):
    until(lambda: says(right) == (200, ""), "it is at work")
    until(lambda: "database" in says(wrong)[1], "it is not, and says why")
    assert says(wrong)[0] == 503
    assert get(f"{wrong}/healthz").status_code == 200


def test_the_portal(amqp_url, database_url, tmp_path):
    refused = with_another_password(database_url, "portal")
    with (
        running_ingress(tmp_path, amqp_url, database_url) as api,
        running_portal(tmp_path, api, TRUSTED_PROXIES="1") as right,
        running_portal(tmp_path, api, TRUSTED_PROXIES="1", DATABASE_URL=refused) as wrong,
    ):
        assert_is_ready_only_when_right(right, wrong)


def test_the_console(amqp_url, database_url, tmp_path):
    refused = with_another_password(database_url, "ops")
    with (
        running_console(tmp_path, amqp_url, database_url) as (right, _),
        running_console(tmp_path, amqp_url, database_url, DATABASE_URL=refused) as (wrong, _),
    ):
        assert_is_ready_only_when_right(right, wrong)


# It has half a minute to be written down, of which a second will do.
PROOF = """
import sys
from shared.telemetry import heartbeat
heartbeat.STALE_SECONDS = 1.0
from services.proof.__main__ import main
sys.exit(main())
"""


def test_the_proof(database_url, tmp_path, unused_port):
    file, log = tmp_path / "health", tmp_path / "proof.log"
    with Port() as port:
        given = {
            "DATABASE_URL": with_another_password(database_url, "proof"),
            "PROOF_URL": f"http://127.0.0.1:{unused_port()}",
            "PROOF_PORT": str(port),
            "HEALTH_FILE": str(file),
        }
        process = spawn(
            (sys.executable, "-c", PROOF),
            environment=os.environ | given,
            log=log,
            directory=ROOT,
        )
        try:
            until(file.exists, "it beats")
            until(lambda: health.wrong(str(file), 0), "it says what is wrong")
        finally:
            stop(process, 15)
    assert "heartbeat" in health.wrong(str(file), 0)[0]
