"""Ten thousand connections that send half a request: memory is bounded, and others are served."""

import asyncio
import resource

import pytest

from tests.integration.arrange import get, resident, until, workers
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import approved

CONNECTIONS = 10_000
BYTES_EACH = 40_000  # of the workers' memory; far more than is used, far less than a body
HALF = b"POST /api/v1/webhooks/orders/ HTTP/1.1\r\nHost: fellow\r\nX-API-Key: "


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 2_000
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"ulimit -Hn is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def half_requests(url, during):
    host, port = url.removeprefix("http://").split(":")
    opened = []
    try:
        for begin in range(0, CONNECTIONS, 500):
            opened += await asyncio.gather(
                *(asyncio.open_connection(host, int(port)) for _ in range(500))
            )
            for _, writer in opened[begin:]:
                writer.write(HALF)
        await asyncio.to_thread(during)
        answers = await asyncio.gather(*(reader.read(12) for reader, _ in opened))
    finally:
        for _, writer in opened:
            writer.close()
    return answers


def test_ten_thousand_who_wait(amqp_url, database_url, tmp_path, many_files):
    with running_ingress(tmp_path, amqp_url, database_url, REQUEST_SECONDS="20") as api:
        sender = approved(api)
        assert sender.send().status_code == 201
        pids = workers(api.pid)
        before = sum(map(resident, pids))
        grown = []

        def meanwhile():
            grown.append(sum(map(resident, pids)) - before)
            assert [sender.send().status_code for _ in range(20)] == [201] * 20

        answers = asyncio.run(half_requests(api.url, meanwhile))
        assert grown[0] < CONNECTIONS * BYTES_EACH
        # Whoever was still there when the time was over was told so.
        assert set(answers) <= {b"HTTP/1.1 408", b""}
        assert answers.count(b"HTTP/1.1 408") > CONNECTIONS // 2
        assert sender.send().status_code == 201
        until(lambda: get(f"{api.url}/readyz").json()["status"] == "ready", "ready")
