"""The notifier: facts into emails, text and HTML, accepted by a mail server, a second."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import text

from bench import filling
from bench.contest import Contender, Result, alternate
from bench.environment import python
from bench.ground import Ground, ground, until
from bench.load import facts
from stack.processes import free_port, is_free, spawn
from stack.servers import ROOT

OURS = "Order Fellow"
DJANGO, DJANGO_KEPT = "Django send_mail", "Django, connection kept"
EMAILS, FEW = 20_000, 1_000
QUEUE = "notifier.orders"


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("notifier")
    with ground(("/usr/sbin/smtp-sink", "postfix")) as on:
        contenders = [
            Contender(OURS, lambda: _ours(on)),
            Contender(DJANGO, lambda: _django(on, "each")),
            Contender(DJANGO_KEPT, lambda: _django(on, "kept")),
        ]
        result.series = alternate(contenders, say)
    result.counted.append("After each run the mail server had taken each email once.")
    rate = result.median(OURS, "emails/s")
    result.at_least("into smtp-sink by one process", 3_000, rate, "emails/s")
    result.at_least(f"against {DJANGO}", 4, rate / result.median(DJANGO, "emails/s"), "x")
    return result


class _Sink:
    """postfix's smtp-sink, for as long as the context lasts."""

    def __init__(self, on: Ground) -> None:
        self.port = free_port()
        self._log = on.folder / f"sink-{self.port}.log"
        command = ("/usr/sbin/smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{self.port}", "128")
        self._process = spawn(command, environment={}, log=self._log)
        until(lambda: not is_free(self.port), "smtp-sink listens")

    def taken(self) -> int:
        """How many emails it has accepted."""
        counts = re.findall(r"mesg=(\d+)", self._log.read_text())
        return int(counts[-1]) if counts else 0

    def __enter__(self) -> "_Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def _ours(on: Ground) -> Mapping[str, float]:
    on.empty("email_deliveries", "inbox")
    filling.fill(on.servers.amqp_url, filling.to_queue(facts.recorded(EMAILS), QUEUE))
    with _Sink(on) as sink:
        process = on.start_service("notifier", SMTP_PORT=str(sink.port))
        until(lambda: on.count("email_deliveries") == EMAILS, f"{EMAILS} emails are sent")
        on.stop(process)
        _check(sink, EMAILS)
    return {"emails/s": _rate(on)}


def _django(on: Ground, how: str) -> Mapping[str, float]:
    with _Sink(on) as sink:
        command = (python(), "-m", "bench.peers.django_mail", str(sink.port), str(FEW), how)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        _check(sink, FEW)
    return {"emails/s": FEW / float(json.loads(done.stdout)["seconds"])}


def _check(sink: _Sink, wanted: int) -> None:
    until(lambda: sink.taken() >= wanted, f"the sink has {wanted} emails", 5)
    if sink.taken() != wanted:
        raise RuntimeError(f"{wanted} emails were sent, and the sink has {sink.taken()}")


def _rate(on: Ground) -> float:
    """Emails a second, from the start of the first transaction to that of the last."""
    with on.engine.connect() as connection:
        seconds, last = connection.execute(
            text("""
                SELECT EXTRACT(epoch FROM max(at) - min(at)),
                       count(*) FILTER (WHERE at = (SELECT max(at) FROM email_deliveries))
                FROM email_deliveries
            """)
        ).one()
    return float((EMAILS - last) / float(seconds))


TEMPLATES = Path(__file__).parent / "peers" / "templates"
