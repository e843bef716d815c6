"""What log, limits and allowlist cost the ingress: accepted orders a second, with and without."""

from collections.abc import Callable, Mapping

from sqlalchemy import text

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, fetch, ground, until
from bench.load import orders, wrk
from bench.suites.ingress import CONNECTIONS, PATH
from stack.folders import ROOT
from stack.servers.ports import Address, Port

WITH, WITHOUT = "with log, limits and allowlist", "without them"
REPEATS = 9
SECONDS = 3
LEAST = 0.85


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("features")
    with ground(("wrk", "wrk")) as on:
        requests = on.folder / "requests"
        orders.write(requests, on.keys, 20_000)
        answered = {WITH: 0, WITHOUT: 0}
        with on.engine.begin() as connection:
            connection.execute(_ALLOW)

        def load(name: str, url: str) -> Callable[[], Mapping[str, float]]:
            def measure() -> Mapping[str, float]:
                on.purge("orders.intake")
                warm = wrk.run(url, requests, seconds=1, connections=CONNECTIONS)
                found = wrk.run(url, requests, seconds=SECONDS, connections=CONNECTIONS)
                answered[name] += int(warm["requests"] + found["requests"])
                return {"orders/s": found["rate"], "ms p99": found["p99"]}

            return measure

        contenders = [
            Contender(WITH, load(WITH, on.start_ingress()[0] + PATH)),
            Contender(WITHOUT, load(WITHOUT, _start_without(on) + PATH)),
        ]
        result.series = alternate(contenders, say, REPEATS)
        until(lambda: on.count("webhook_requests") >= answered[WITH], "every request is logged", 10)
    result.counted.append("Every request that was answered is in the log.")
    rates = {name: result.median(name, "orders/s") for name in (WITH, WITHOUT)}
    result.at_least(WITH, LEAST, rates[WITH] / rates[WITHOUT], "x")
    return result


_ALLOW = text("""
    INSERT INTO webhook_policies (account_id, allowed_networks)
    SELECT id, ARRAY['127.0.0.0/8', '2001:db8::/32'] FROM accounts
""")


def _start_without(on: Ground) -> str:
    port = Port()
    settings: dict[str, object] = {**on.servers.for_service("ingress")}
    metrics = on.folder / "metrics"  # else its metrics would be cheaper than the other's
    metrics.mkdir()
    settings |= {"PORT": port, "WEB_CONCURRENCY": "1"}
    settings["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    conf = str(ROOT / "services/ingress/server/gunicorn.conf.py")
    app = "bench.peers.http.bare:create_app()"
    on.start("-m", "gunicorn", "--config", conf, app, environment=settings, listens=port)
    url = str(Address(port))
    until(lambda: b'"ready"' in fetch(f"{url}/readyz"), "the bare ingress is ready")
    return url
