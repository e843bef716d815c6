"""Two of each process side by side, killed at random: the work is shared and nothing is doubled."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.db.models import WebhookSecret
from tests.faults.ledger import SETTLE_SECONDS
from tests.integration.arrange import account, until

SECONDS = ["relay", "secrets", "orders", "kyc"]
DUE = 60
KILLS = 25


@pytest.fixture(scope="module")
def service_environment():
    return lambda _: {"SECRET_SCHEDULE_SECONDS": "0.2"}


@pytest.fixture(scope="module")
def doubled(stand):
    for name in SECONDS:
        stand.add_another(name)
    return [twin for name in SECONDS for twin in (name, f"{name} 2")]


def test_two_relays_and_two_recorders(stand, doubled):
    with stand.load() as load:
        for _ in range(KILLS):
            pid = stand.supervisor.pid(stand.rng.choice(doubled))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            stand.go_on(stand.rng.expovariate(3))
        stand.ready()
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def test_two_schedulers_rotate_each_secret_once(stand, doubled, configure):
    configure(database_url=stand.engine.url.render_as_string(hide_password=False))
    with Session(stand.engine, expire_on_commit=False) as session:
        accounts = [account(session, status="approved") for _ in range(DUE)]
        for made in accounts:
            rotation.issue(session, made)
        session.commit()
        # All due in the same moment.
        session.execute(
            text(
                "UPDATE webhook_secrets SET expires_at = :soon, issued_at = :before "
                "WHERE account_id = ANY(:ids)"
            ),
            {
                "soon": datetime.now(UTC) + timedelta(days=1),
                "before": datetime.now(UTC) - timedelta(days=89),
                "ids": [made.id for made in accounts],
            },
        )
        session.commit()
    ids = [made.id for made in accounts]

    def states():
        with Session(stand.engine) as session:
            rows = session.query(WebhookSecret).where(WebhookSecret.account_id.in_(ids)).all()
            return sorted((row.account_id, row.state) for row in rows)

    killed = []

    def killed_and_done():
        pid = stand.supervisor.pid(stand.rng.choice(["secrets", "secrets 2"]))
        # Not without end: on a busy machine one takes longer to start than the next kill to come.
        if pid is not None and len(killed) < KILLS and stand.rng.random() < 0.3:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        stand.go_on(0.3)
        return len(states()) >= 2 * DUE

    until(killed_and_done, "all rotated", SETTLE_SECONDS)
    expected = sorted((id_, state) for id_ in ids for state in ("active", "retiring"))
    assert states() == expected
    stand.go_on(2)
    assert states() == expected

    mailed = text(
        "SELECT subject_id, count(*) FROM email_deliveries"
        " WHERE template = 'secret_rotated' AND subject_id = ANY(:ids) GROUP BY subject_id"
    )

    def told():
        with stand.engine.connect() as connection:
            rows = connection.execute(mailed, {"ids": [str(id_) for id_ in ids]})
            return {row[0]: row[1] for row in rows}

    until(lambda: len(told()) == DUE, "every business is told")
    assert told() == {str(id_): 1 for id_ in ids}
