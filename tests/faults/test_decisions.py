"""Decisions and secrets under load, while who carries them out is killed: more of the ledger.

Each decision has one effect, in the order in which the broker took them for one business; in the
end who is approved has exactly one active secret, and who is revoked has none; each secret was
issued once and told once.
"""

import os
import signal
from collections import Counter

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.events import KycDecide
from shared.bus.contract.message import message_for
from tests.integration.arrange import account, depth, publish, until

BUSINESSES = 40
KILLED = ("kyc", "secrets", "relay", "notifier")


def decided(business, decision):
    reason = "" if decision == "approve" else "by mistake"
    event = KycDecide(decision=decision, account_id=business, reason=reason)
    return message_for(event, source="tests", correlation_id=business)


def rows(stand, query, **values):
    with stand.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]


def test_each_decision_takes_effect_once_and_in_order(stand):
    with Session(stand.engine, expire_on_commit=False) as session:
        made = [account(session, status="pending").id for _ in range(BUSINESSES)]
    revoked = set(stand.rng.sample(made, BUSINESSES // 2))
    ours = {"ids": made}
    ends = {business: "revoked" if business in revoked else "approved" for business in made}

    def statuses():
        query = "SELECT account_id, status FROM kyc_applications WHERE account_id = ANY(:ids)"
        return dict(rows(stand, query, **ours))

    with stand.load() as load:
        for business in made:
            # One right behind the other, as of somebody who corrects a mistake at once.
            also = [decided(business, "revoke")] if business in revoked else []
            publish(stand.amqp_url, decided(business, "approve"), *also)
            if stand.rng.random() < 0.4:
                pid = stand.supervisor.pid(stand.rng.choice(KILLED))
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            stand.go_on(stand.rng.expovariate(10))

        def is_through():
            stand.supervisor.watch()
            waiting = "SELECT count(*) FROM kyc_applications WHERE account_id = ANY(:ids)" + (
                " AND status = 'approved' AND NOT EXISTS (SELECT FROM"
                " webhook_secrets s WHERE s.account_id = kyc_applications.account_id)"
            )
            # A decision in hand is in no queue's depth.
            return (
                statuses() == ends
                and rows(stand, waiting, **ours) == [(0,)]
                and depth(stand.amqp_url, "kyc.decisions") == 0
                and depth(stand.amqp_url, "secrets.issue") == 0
            )

        until(is_through, "all is decided")
        stand.ready()
    stand.settle(load)
    assert statuses() == ends
    active = (
        "SELECT account_id, count(*) FROM webhook_secrets WHERE account_id = ANY(:ids)"
        " AND state IN ('active', 'retiring') GROUP BY account_id"
    )
    assert dict(rows(stand, active, **ours)) == {
        business: 1 for business in made if business not in revoked
    }
    issued = "SELECT account_id FROM webhook_secrets WHERE account_id = ANY(:ids)"
    assert max(Counter(rows(stand, issued, **ours)).values()) == 1
    mails = (
        "SELECT subject_id, template FROM email_deliveries"
        " WHERE subject_id = ANY(:ids) AND state = 'sent'"
    )

    def told():
        return Counter(rows(stand, mails, ids=[str(id_) for id_ in made]))

    def told_of(template):
        return sorted(subject for subject, name in told().elements() if name == template)

    expected = {
        "kyc_approved": sorted(map(str, made)),
        "kyc_revoked": sorted(map(str, revoked)),
        "secret_issued": sorted(str(id_) for (id_,) in rows(stand, issued, **ours)),
    }
    until(lambda: all(len(told_of(name)) >= len(expected[name]) for name in expected), "told")
    stand.go_on(1)  # for what would come twice
    print("ledger:", dict(Counter(template for _, template in told().elements())))
    assert {name: told_of(name) for name in expected} == expected
    for queue in ("kyc.decisions", "secrets.issue"):
        assert depth(stand.amqp_url, f"{queue}.dead") == 0
