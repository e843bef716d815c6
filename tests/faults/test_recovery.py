"""Backup and recovery, by the commands of docs/recovery.md, with services that were killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.events import AccountBlock, SecretRevoke
from shared.bus.contract.message import message_for
from shared.ids import new_id
from shared.security import webhook_keys
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    PATIENCE,
    access_token,
    account,
    depth,
    publish,
    publish_raw,
    sign,
    until,
)

RECOVERY = Path(__file__).resolve().parents[2] / "docs" / "recovery.md"
ORDERS = """
    SELECT id, account_id, customer_name, customer_email, customer_phone, item_summary, address,
           tracking_status, status_at, status_event_id, accepted_at
    FROM orders ORDER BY id
"""
# All of it but when it was recorded.
HISTORY = (
    "SELECT event_id, order_id, tracking_status, note, at, applied, tracking "
    "FROM order_status_history ORDER BY event_id"
)


def documented(heading):
    """The `fellow` commands under a heading of docs/recovery.md, a list for each block of them."""
    section = RECOVERY.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    found = [re.findall(r"^fellow (journal .*)$", block, re.MULTILINE) for block in blocks]
    return [commands for commands in found if commands]


def run(stand, command, since):
    """As an operator in production, who says who they are."""
    person = urlsplit(stand.amqp_url)
    database_url = stand.engine.url.update_query_dict({"sslmode": "disable"})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "services.ops",
            *shlex.split(command.replace('"$BACKUP"', since), comments=True),
        ],
        env=os.environ
        | {
            "ENVIRONMENT": "production",
            "AMQP_URL": as_service(stand.amqp_url, "console"),
            "DATABASE_URL": as_service(database_url.render_as_string(hide_password=False), "ops"),
            "FELLOW_AS": person.username,
            "FELLOW_PASSWORD": person.password,
        },
        input="y\n",  # it asks, as it does whoever types it
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    print(f"fellow {command}: {done.stdout.split()}")


@pytest.fixture(scope="module")
def service_environment():
    """What a decision has to have in production."""
    return lambda name: {"KYC_UNNAMED_DECISIONS": "refuse"} if name == "kyc" else {}


def rows(stand, query):
    with stand.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def update(stand, order_id, status):
    body = f'{{"type":"order.status_changed","order_id":"{order_id}","tracking_status":"{status}"}}'
    answer = httpx.post(
        f"{stand.url}/api/v1/webhooks/orders/",
        content=body.encode(),
        headers=sign(stand.secret, body.encode()),
        timeout=PATIENCE,
    )
    assert answer.status_code == 201, answer.text


def accepted(load):
    return [sent.order_id for sent in load.sent if sent.status == 201]


def facts_wait(stand):
    """Whether some wait for the notifier, in either lane."""
    return any(depth(stand.amqp_url, queue) for queue in ("notifier.orders", "notifier.bulk"))


def in_outbox(stand):
    return rows(stand, "SELECT count(*) FROM outbox")[0][0]


def database_of(stand):
    return stand.engine.url.database


def test_the_orders_tables_are_emptied_and_rebuilt(stand):
    since = datetime.now(UTC).isoformat()
    with stand.load() as load:
        stand.go_on(3)
        stand.go_on_until(lambda: len(accepted(load)) >= 20, "twenty orders are accepted")
    stand.settle(load)
    moved = accepted(load)[:20]
    for order_id in moved:
        update(stand, order_id, "IN_TRANSIT")
    updated = "SELECT count(*) FROM orders WHERE tracking_status = 'IN_TRANSIT'"
    until(lambda: rows(stand, updated) == [(20,)], "updated")
    those = ", ".join(f"'{order_id}'" for order_id in moved)
    told = f"SELECT count(*) FROM email_deliveries WHERE subject_id IN ({those})"
    until(lambda: rows(stand, told) == [(40,)], "each is told of both")
    # A replay begins hours before `since`: what other tests have sent comes back too.
    before = rows(stand, ORDERS), rows(stand, HISTORY)
    emails = len(list((stand.mail.maildir.path / "new").iterdir()))
    with stand.engine.begin() as connection:
        connection.execute(text("TRUNCATE orders, order_status_history"))
    (commands,) = documented("The orders tables are lost")
    for command in commands:
        run(stand, command, since)
    count = len(before[0])
    until(lambda: rows(stand, "SELECT count(*) FROM orders") == [(count,)], "rebuilt")
    until(lambda: rows(stand, updated) == [(20,)], "updated again")
    until(lambda: in_outbox(stand) == 0, "the facts are relayed")
    until(lambda: not facts_wait(stand), "the facts are handled")
    assert (rows(stand, ORDERS), rows(stand, HISTORY)) == before
    # Twenty customers have heard twice of their orders, and of nothing twice.
    assert stand.settle(load).doubled == 0
    assert len(list((stand.mail.maildir.path / "new").iterdir())) == emails


class Ended:
    """Businesses whose secrets are alive in the dump, and were ended after it."""

    def __init__(self, stand):
        self.stand = stand
        with Session(stand.engine, expire_on_commit=False) as session:
            made = [account(session, status="approved") for _ in range(5)]
        self.revoked, self.rotated, self.blocked, self.waiting, self.taken_back = (
            one.id for one in made
        )
        self.secrets = {one.id: self._secret(one.id, {}) for one in made}

    def _secret(self, account_id, body):
        bearer = {"Authorization": f"Bearer {access_token(account_id)}"}
        url = f"{self.stand.url}/api/v1/webhook/secret/"
        answer = httpx.post(url, headers=bearer, json=body, timeout=PATIENCE)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["secret_key"]

    def end_one(self):
        self._give(SecretRevoke(account_id=self.waiting, reason="Before the dump began."))

    def _give(self, command):
        message = message_for(command, source="tests", correlation_id=command.account_id)
        publish(self.stand.amqp_url, message)

    def _take_back(self, reason):
        """Take an approval back, as an operator does by any client: it counts as theirs alone."""
        body = {"decision": "revoke", "account_id": str(self.taken_back), "reason": reason}
        operator = self.stand.amqp_url
        publish_raw(
            operator,
            "commands",
            "kyc.decide",
            json.dumps(body).encode(),
            user_id=urlsplit(operator).username,
            message_id=str(new_id()),
        )

    def end(self):
        reason = "Before the disk was lost."
        self._give(SecretRevoke(account_id=self.revoked, reason=reason))
        self._give(AccountBlock(account_id=self.blocked, blocked=True, reason=reason))
        self._take_back(reason)
        self._secret(self.rotated, {"revoke_previous": True})
        until(self.are_ended, "ended")
        until(lambda: in_outbox(self.stand) == 0, "the facts are relayed")

    def are_ended(self):
        live = {
            owner: state
            for owner, key, state in rows(
                self.stand, "SELECT account_id, key_hash, state FROM webhook_secrets"
            )
            if bytes(key) == webhook_keys.key_hash(self.secrets.get(owner, "").encode())
        }
        blocked = "SELECT account_id FROM webhook_policies WHERE blocked_at IS NOT NULL"
        ended = {live[one] for one in (self.revoked, self.rotated, self.waiting, self.taken_back)}
        return ended == {"revoked"} and (self.blocked,) in rows(self.stand, blocked)

    def answers(self):
        body = b'{"type":"order.created"}'
        url = f"{self.stand.url}/api/v1/webhooks/orders/"
        return {
            httpx.post(url, content=body, headers=sign(secret, body), timeout=PATIENCE).status_code
            for secret in self.secrets.values()
        }


def test_an_older_dump_and_the_journal_are_the_whole_truth(stand):
    """What was recorded, relayed or mailed after the dump, or waits half way, ends as it should."""
    with stand.load() as before:
        stand.go_on(2)
    stand.settle(before)
    ended = Ended(stand)
    # What waits when the dump begins, and is done after it, is in neither the dump nor a queue.
    for name in ("orders", "secrets"):
        stop(stand, name, signal.SIGTERM)
    with stand.load() as waiting:
        time.sleep(1)
    ended.end_one()
    time.sleep(1.1)
    since = datetime.now(UTC).isoformat()
    stand.database.dump(database_of(stand))

    def at_work():
        stand.supervisor.watch()
        return all(map(stand.supervisor.pid, ("orders", "secrets")))

    until(at_work, "at work again")
    stand.settle(waiting)
    ended.end()
    with stand.load() as after:
        stand.go_on(3)
        # From here on nothing is started again: facts wait in the queue, ...
        stop(stand, "notifier", signal.SIGTERM)
        time.sleep(1)
        until(lambda: facts_wait(stand), "facts wait for the notifier")
        # ... in an outbox that the dump knows nothing of, ...
        stop(stand, "relay", signal.SIGKILL)
        time.sleep(1)
        until(lambda: in_outbox(stand), "facts wait for the relay")
        # ... and orders in theirs.
        stop(stand, "orders", signal.SIGKILL)
        time.sleep(1)
        until(lambda: depth(stand.amqp_url, "orders.intake"), "orders wait for the recorder")
    assert in_outbox(stand) > 0
    assert facts_wait(stand)
    assert depth(stand.amqp_url, "orders.intake") > 0
    stand.supervisor.stop()
    stand.engine.dispose()
    stand.database.restore(database_of(stand))
    assert not ended.are_ended()
    told, ended_again, recorded = documented("The database is lost")
    for command in told:
        assert "--done" in command
        run(stand, command, since)

    def empty(*queues):
        stand.supervisor.watch(but=("ingress",))
        return not any(depth(stand.amqp_url, queue) for queue in queues)

    notifier = ("notifier.orders", "notifier.bulk", "notifier.urgent")
    until(lambda: empty(*notifier), "what waited is told")
    for command in ended_again:
        run(stand, command, since)
    until(lambda: empty("kyc.decisions", "secrets.rotate") and ended.are_ended(), "ended again")
    dead = [depth(stand.amqp_url, f"{name}.dead") for name in ("kyc.decisions", "secrets.rotate")]
    assert dead == [0, 0]
    assert stand.supervisor.pid("ingress") is None
    stand.ready()
    assert ended.answers() <= {401, 403}
    for command in recorded:
        run(stand, command, since)
    balance = stand.settle(after)
    assert set(balance.answers) == {201}
    assert balance.doubled == 0
    assert stand.settle(before).doubled == 0
    assert stand.settle(waiting).doubled == 0


def stop(stand, name, how):
    os.kill(stand.supervisor.pid(name), how)
    until(lambda: stand.supervisor.pid(name) is None, f"{name} has ended")
