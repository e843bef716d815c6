"""The ingress: signed requests that are accepted and confirmed on a quorum queue, a second."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kombu import Connection

from bench.contest import Contender, Result, alternate
from bench.environment import python
from bench.ground import Ground, fetch, ground, until
from bench.load import orders, steady, wrk
from stack.folders import ROOT
from stack.servers.ports import Address, Port

SECONDS = 4
CONNECTIONS = 64
RATES = (500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000, 10_000)
CURVE_SECONDS = 3
TOO_SLOW = 300  # ms
PATH = "/api/v1/webhooks/orders/"
OURS, TWO, CEILING = "Order Fellow", "Order Fellow, 2 workers", "the same, without publishing"
FASTAPI, FLASK, FALCON = "FastAPI + aio-pika", "Flask + Celery", "Falcon WSGI + pika"
PEERS = {
    FASTAPI: ("bench.peers.http.fastapi_aiopika:app", ("-k", "uvicorn_worker.UvicornWorker")),
    FLASK: ("bench.peers.http.flask_celery:app", ("-k", "gthread", "--threads", "64")),
    FALCON: ("bench.peers.http.falcon_wsgi:app", ("-k", "gthread", "--threads", "64")),
}


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("ingress")
    with ground(("wrk", "wrk")) as on:
        requests = on.folder / "requests"
        orders.write(requests, on.keys, 20_000)

        def load(url: str, queue: str | None) -> Callable[[], Mapping[str, float]]:
            def measure() -> Mapping[str, float]:
                if queue:
                    on.purge(queue)
                warm = wrk.run(url, requests, seconds=1, connections=CONNECTIONS)
                found = wrk.run(url, requests, seconds=SECONDS, connections=CONNECTIONS)
                if queue:
                    count(on, queue, int(warm["requests"] + found["requests"]))
                return {
                    "orders/s": found["rate"],
                    "ms p50": found["p50"],
                    "ms p99": found["p99"],
                }

            return measure

        urls = {
            OURS: on.start_ingress()[0] + PATH,
            TWO: on.start_ingress(workers=2)[0] + PATH,
            CEILING: _start_ceiling(on) + PATH,
        }
        queues: dict[str, str | None] = {OURS: "orders.intake", TWO: "orders.intake", CEILING: None}
        for number, (name, (app, options)) in enumerate(PEERS.items()):
            queues[name] = queue = f"peer.{number}"
            urls[name] = _start_peer(on, app, queue, options)
        contenders = [Contender(name, load(urls[name], queues[name])) for name in urls]
        result.series = alternate(contenders, say)
        for name in (OURS, FASTAPI, FALCON):
            result.curves[name] = _curve(on, name, urls[name], requests, say)
    result.counted.append(
        "After each run the queue held every order that was answered 201, and no more than those "
        f"and the {CONNECTIONS} under way when it ended."
    )
    rate = {name: result.median(name, "orders/s") for name in (c.name for c in contenders)}
    result.at_least("of the ceiling", 0.5, rate[OURS] / rate[CEILING], "x")
    result.at_least(FASTAPI, 3, rate[OURS] / rate[FASTAPI], "x")
    result.at_least(FLASK, 12, rate[OURS] / rate[FLASK], "x")
    p50, p99 = result.median(OURS, "ms p50"), result.median(OURS, "ms p99")
    result.at_most("p99, against 2 x p50 + 10 ms", 2 * p50 + 10, p99, "ms")
    result.at_least("2 workers against 1", 1, rate[TWO] / rate[OURS], "x")
    return result


def _curve(
    on: Ground, name: str, url: str, requests: Path, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Latency by rate, up to the first rate that is too much."""
    points = []
    steady.run(url, requests, rate=RATES[0], seconds=1)  # to warm up
    for rate in RATES:
        on.purge("orders.intake")
        try:
            found = steady.run(url, requests, rate=rate, seconds=CURVE_SECONDS)
        except RuntimeError:
            break
        point = {"rate": rate, "p50": found["p50"], "p99": found["p99"], "max": found["max"]}
        points.append(point)
        say(f"  {name} at {rate:,}/s: p50 {point['p50']:.1f} ms, p99 {point['p99']:.1f} ms")
        if point["p99"] > TOO_SLOW:
            break
    return points


def _start_ceiling(on: Ground) -> str:
    port = Port()
    settings: dict[str, object] = {**on.servers.for_service("ingress")}
    settings |= {"PORT": port, "WEB_CONCURRENCY": "1"}
    conf = str(ROOT / "services/ingress/server/gunicorn.conf.py")
    app = "bench.peers.http.no_publish:create_app()"
    on.start("-m", "gunicorn", "--config", conf, app, environment=settings, listens=port)
    url = str(Address(port))
    until(lambda: b'"ready"' in fetch(f"{url}/readyz"), "the ceiling is ready")
    return url


def _start_peer(on: Ground, app: str, queue: str, options: tuple[str, ...]) -> str:
    with Connection(on.servers.amqp_url) as connection:
        connection.default_channel.queue_declare(
            queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
        )
    port = Port()
    environment = {
        "AMQP_URL": on.servers.amqp_url,
        "PEER_QUEUE": queue,
        "SECRETS_FILE": str(on.secrets_file()),
    }
    bind = ("--bind", Address(port, "127.0.0.1:{}"), "--keep-alive", "30", "--no-control-socket")
    on.start(
        "-m",
        "gunicorn",
        *(app, *bind, *options),
        environment=environment,
        python=python(),
        listens=port,
    )
    url = f"{Address(port)}/"
    until(lambda: fetch(url), f"{app} answers")
    return url


def count(on: Ground, queue: str, answered: int, connections: int = CONNECTIONS) -> None:
    """Every order that was answered must be in the queue.

    Raises:
        RuntimeError: it is not so.
    """
    # Those under way when the warm-up and the run ended, and on a slow machine the run before.
    most = answered + 3 * connections
    with suppress(TimeoutError):
        until(lambda: answered <= on.depth(queue) <= most, "counted", 5)
    held = on.depth(queue)
    if not answered <= held <= most:
        raise RuntimeError(f"{answered} orders were accepted, and {held} are in {queue}")
