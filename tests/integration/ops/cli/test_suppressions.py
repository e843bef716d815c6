"""`fellow suppressions`, `fellow trail` and `fellow customer` know who is not mailed."""

import json

import pytest
from sqlalchemy import select, text

from shared.bus.contract.events import OpsSuppressionLifted
from shared.db.models import Suppression
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from tests.integration.arrange import account, facts
from tests.integration.notifier.test_leaving import recorded
from tests.integration.notifier.test_refused_addresses import a_row
from tests.integration.ops.cli.test_cli import fellow

ZOE = "zoe@shop.example"


@pytest.fixture
def business(db):
    return account(db, status="approved")


@pytest.fixture
def order(db, business):
    return recorded(db, business)[1]


def rows(db):
    db.rollback()
    return db.scalars(select(Suppression).order_by(Suppression.id)).all()


def told(db):
    return facts(db, OpsSuppressionLifted.TYPE)


def test_what_a_mail_server_said_is_lifted_and_told(settings, db, business, order):
    db.add(a_row(business, order, cause="refused", smtp_code=550, response="550 5.1.1 gone"))
    db.commit()
    code, out, err = fellow(settings, "suppressions", "list", business.email, "--json")
    assert code == 0, err
    (shown,) = json.loads(out)
    assert (shown["cause"], shown["address"]) == ("refused", ZOE)
    code, _, err = fellow(
        settings, "suppressions", "lift", business.email, "ZOE@shop.example", "--yes",
        "--reason", "the mailbox is back",
    )  # fmt: skip
    assert code == 0, err
    assert rows(db) == []
    (fact,) = told(db)
    assert (fact.account_id, fact.reason) == (business.id, "the mailbox is back")
    assert ZOE not in str(fact)
    code, _, err = fellow(settings, "suppressions", "lift", business.email, ZOE, "--yes")
    assert (code, "No email to this address" in err) == (1, True)


def test_who_has_left_is_brought_back_by_nobody(settings, db, business, order):
    db.add(a_row(business, order))
    db.commit()
    code, _, err = fellow(settings, "suppressions", "lift", business.email, ZOE, "--yes")
    assert (code, "only they can come back" in err) == (1, True)
    # Nor by the function that the command calls.
    assert len(rows(db)) == 1
    (row,) = rows(db)
    assert db.scalar(text("SELECT lift_suppression(:id)"), {"id": row.id}) is False
    assert told(db) == []


def test_an_orders_trail_says_so(settings, db, business, order):
    db.add(a_row(business, order, order_id=order.id))
    db.add(a_row(business, order, cause="refused", response="550 5.1.1 gone"))
    db.commit()
    code, out, err = fellow(settings, "trail", str(order.id), "--no-bus")
    assert code == 0, err
    assert "wants no more emails about this order" in out
    assert "refused for good, and is mailed no more: 550 5.1.1 gone" in out


def test_an_erasure_takes_the_address_and_leaves_the_hash(settings, db, business, order):
    other = recorded(db, business, "bola@shop.example")[1]
    db.add_all(
        [
            a_row(business, order),
            a_row(business, order, order_id=order.id),
            a_row(business, order, cause="refused", response="550 5.1.1 gone"),
            a_row(business, other),
        ]
    )
    db.commit()
    code, out, err = fellow(settings, "customer", "export", ZOE)
    assert code == 0, err
    assert len(json.loads(out)["tables"]["suppressions"]) == 3
    code, out, err = fellow(
        settings, "customer", "erase", "Zoe@Shop.example", "--reason", "17", "--yes", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["places"]["suppressions"] == 3
    left = {(row.cause, row.order_id, row.address) for row in rows(db)}
    assert left == {
        ("unsubscribed", None, None),
        ("unsubscribed", order.id, None),
        ("unsubscribed", None, "bola@shop.example"),
    }
    hashed = unsubscribe_tokens().hashes(business.id, ZOE)[0]
    assert hashed.value in {row.address_hash for row in rows(db)}
