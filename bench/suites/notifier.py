"""The notifier: facts into emails, text and HTML, accepted by a mail server, a second."""

import json
import subprocess
from collections.abc import Callable, Mapping

from sqlalchemy import text

from bench import filling
from bench.contest import Contender, Result, alternate
from bench.environment import python
from bench.ground import Ground, ground, until
from bench.load import facts
from bench.load.smtp_sink import NEEDS, SmtpSink, smtp_sink
from stack.folders import ROOT

OURS = "Order Fellow"
DJANGO, DJANGO_KEPT = "Django send_mail", "Django, connection kept"
EMAILS, FEW = 20_000, 1_000


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("notifier")
    with ground(NEEDS) as on:
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


def _ours(on: Ground) -> Mapping[str, float]:
    on.empty("email_deliveries", "inbox")
    filling.fill(on.servers.amqp_url, facts.recorded(EMAILS))
    with smtp_sink(on.folder) as sink:
        process = on.start_service("notifier", SMTP_PORT=str(sink.port))
        until(lambda: on.count("email_deliveries") == EMAILS, f"{EMAILS} emails are sent")
        on.stop(process)
        _check(sink, EMAILS)
    return {"emails/s": _rate(on)}


def _django(on: Ground, how: str) -> Mapping[str, float]:
    with smtp_sink(on.folder) as sink:
        command = (python(), "-m", "bench.peers.django_mail", str(sink.port), str(FEW), how)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        _check(sink, FEW)
    return {"emails/s": FEW / float(json.loads(done.stdout)["seconds"])}


def _check(sink: SmtpSink, wanted: int) -> None:
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
