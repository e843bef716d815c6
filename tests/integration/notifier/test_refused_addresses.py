"""An address that the mail server refused for good is left alone, and its business is told."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from msgspec import UNSET
from prometheus_client import REGISTRY
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from services.notifier.suppression import upkeep
from services.notifier.suppression.upkeep import keep, warn_of_refusals
from shared.bus.contract import topology
from shared.bus.contract.events import OrderRecipientsRefused
from shared.db import session as database
from shared.db.models import Account, Order, Suppression, WebhookPolicy
from shared.db.session import transaction
from shared.ids import new_id
from shared.security import unsubscribe_tokens
from tests.integration.arrange import account, ago, depth
from tests.integration.notifier.test_leaving import mailed, recorded, told
from tests.integration.notifier.test_sending import facts
from tests.unit.notifier.facts import FACTS

GONE = "550 5.1.1 no such mailbox"


@pytest.fixture
def config(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port), smtp_timeout="5")


@pytest.fixture
def business(db):
    return account(db, status="approved")


def refusing(mailbox, reply, only="gone@"):
    mailbox.handler.respond = lambda address: reply if only in address else None


def news(engine):
    return [fact for fact in facts(engine) if isinstance(fact, OrderRecipientsRefused)]


def test_it_is_tried_once_by_the_business_and_by_others_apart(
    config, db, business, mailbox, engine, amqp_url
):
    refusing(mailbox, GONE)
    _, order = recorded(db, business, "gone@shop.example")
    assert mailed(config, engine, amqp_url, told("order_received", order)) == {
        "order_received": "undeliverable"
    }
    asked = []
    mailbox.handler.respond = lambda address: asked.append(address)
    # Nothing goes there any more, receipts neither, however it is written.
    _, again = recorded(db, business, "Gone@SHOP.example")
    assert mailed(
        config, engine, amqp_url, told("order_status", order), told("order_received", again)
    ) == {"order_status": "suppressed", "order_received": "suppressed"}
    assert asked == []
    assert depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 1  # the first alone
    # Another address of the customer is mailed; so is this one by another business.
    _, mended = recorded(db, business, "zoe@shop.example")
    _, elsewhere = recorded(db, account(db, status="approved"), "gone@shop.example")
    for one in (mended, elsewhere):
        assert mailed(config, engine, amqp_url, told("order_received", one)) == {
            "order_received": "sent"
        }


@pytest.mark.parametrize(
    "reply",
    ["550 5.7.1 blocked", "552 5.2.2 mailbox full", "550 no such user", "554 5.1.8 bad sender"],
)
def test_a_refusal_for_another_reason_suppresses_nothing(
    config, db, business, mailbox, engine, amqp_url, reply
):
    refusing(mailbox, reply)
    _, order = recorded(db, business, "gone@shop.example")
    assert mailed(config, engine, amqp_url, told("order_received", order)) == {
        "order_received": "undeliverable"
    }
    assert db.scalars(select(Suppression)).all() == []
    mailbox.handler.respond = None
    assert mailed(config, engine, amqp_url, told("order_status", order)) == {"order_status": "sent"}


def test_a_businesss_own_mail_is_never_suppressed(config, db, business, mailbox, engine, amqp_url):
    """A code at the least: whoever cannot get one cannot get in."""
    refusing(mailbox, GONE)
    _, order = recorded(db, business, "gone@shop.example")
    own = msgspec.structs.replace(
        FACTS["one_time_code"], account_id=business.id, email="gone@shop.example"
    )
    states = mailed(config, engine, amqp_url, told("order_received", order), own)
    assert states == {"order_received": "undeliverable", "one_time_code": "undeliverable"}
    assert len(db.scalars(select(Suppression)).all()) == 1
    mailbox.handler.respond = None
    own = msgspec.structs.replace(FACTS["signed_in"], email="gone@shop.example")
    assert mailed(config, engine, amqp_url, own) == {"signed_in": "sent"}


def tries(outcome):
    labels = {"template": "order_received", "outcome": outcome}
    return REGISTRY.get_sample_value("fellow_emails_total", labels) or 0.0


def test_of_a_blocked_business_no_customer_is_mailed(
    config, db, business, mailbox, engine, amqp_url
):
    """What waited when it was blocked goes to nobody; what is for the business itself goes on."""
    _, order = recorded(db, business, "zoe@shop.example")
    db.add(WebhookPolicy(account_id=business.id, blocked_at=datetime.now(UTC)))
    db.commit()
    own = msgspec.structs.replace(FACTS["signed_in"], account_id=business.id)
    before = tries("refused"), tries("not_sent")
    states = mailed(config, engine, amqp_url, told("order_received", order), own)
    assert states == {"order_received": "undeliverable", "signed_in": "sent"}
    # The alert of a mail server that refuses us counts the former.
    assert (tries("refused"), tries("not_sent")) == (before[0], before[1] + 1)
    db.execute(update(WebhookPolicy).values(blocked_at=None))
    db.commit()
    assert mailed(config, engine, amqp_url, told("order_status", order)) == {"order_status": "sent"}


def test_the_business_is_told_once_a_day_of_all_of_them(
    config, db, business, mailbox, engine, amqp_url
):
    refusing(mailbox, GONE)
    orders = [recorded(db, business, f"gone@{n}.example")[1] for n in range(3)]
    orders[0].order_number = "A-1001"
    db.commit()
    for order in orders:
        mailed(config, engine, amqp_url, told("order_received", order))
    for _ in range(2):
        with transaction() as session:
            warn_of_refusals(session)
    (fact,) = news(engine)
    assert (fact.email, fact.total) == (business.email, 3)
    assert {one.address for one in fact.recipients} == {o.customer_email for o in orders}
    assert {one.order_id for one in fact.recipients} == {order.id for order in orders}
    assert fact.recipients[0].response == GONE
    numbers = {one.order_id: one.order_number for one in fact.recipients}
    assert numbers == {o.id: o.order_number or UNSET for o in orders}
    # What comes on the same day waits, also when all before it is lifted meanwhile.
    _, late = recorded(db, business, "gone@late.example")
    mailed(config, engine, amqp_url, fact, told("order_received", late))
    db.rollback()
    db.execute(Suppression.__table__.delete().where(Suppression.told_at.is_not(None)))
    db.commit()
    with transaction() as session:
        warn_of_refusals(session)
    assert len(news(engine)) == 1
    yesterday = datetime.now(UTC) - timedelta(days=1, minutes=1)
    db.connection().exec_driver_sql(
        "UPDATE email_deliveries SET at = %s WHERE template = 'recipients_refused'", (yesterday,)
    )
    db.commit()
    with transaction() as session:
        warn_of_refusals(session)
    assert [one.address for one in news(engine)[1].recipients] == ["gone@late.example"]


def refused_by(db, business, count):
    """So many refused addresses of a business, untold."""
    for n in range(count):
        _, order = recorded(db, business, f"gone@{n}.example")
        db.add(a_row(business, order, cause="refused"))
    db.commit()


@pytest.mark.parametrize("stops_after", [1, 2])
def test_a_warning_of_any_number_is_made_in_pages_and_once(
    config, db, business, engine, monkeypatch, stops_after
):
    """However it is broken off: what was counted is in the warning, and in no other."""
    monkeypatch.setattr(upkeep, "ROWS", 3)
    monkeypatch.setattr(upkeep, "PAGES", stops_after)
    refused_by(db, business, 8)
    other = account(db, status="approved")
    refused_by(db, other, 2)
    pages = []
    for _ in range(4):
        warn_of_refusals(db)
        db.rollback()
        untold = select(Suppression).where(Suppression.told_at.is_(None))
        pages.append(len(db.scalars(untold).all()))
    assert pages == {1: [5, 2, 0, 0], 2: [2, 0, 0, 0]}[stops_after]
    told_of = {fact.account_id: fact for fact in news(engine)}
    assert len(news(engine)) == 2
    assert (told_of[business.id].total, told_of[other.id].total) == (8, 2)
    # Not those of the last page alone.
    assert len(told_of[business.id].recipients) == 8


def test_a_warning_is_of_so_many_and_the_rest_is_told_the_next_day(
    config, db, business, engine, monkeypatch
):
    monkeypatch.setattr(upkeep, "ROWS", 2)
    monkeypatch.setattr(upkeep, "MOST_TOLD", 4)
    refused_by(db, business, 7)
    warn_of_refusals(db)
    assert [fact.total for fact in news(engine)] == [4]
    db.execute(update(Suppression).values(told_at=Suppression.told_at - timedelta(days=2)))
    db.commit()
    warn_of_refusals(db)
    assert [fact.total for fact in news(engine)] == [4, 3]
    first, second = ({one.address for one in fact.recipients} for fact in news(engine))
    assert (len(first), len(second), first & second) == (4, 3, set())


def test_a_warning_whose_rest_was_lifted_meanwhile_is_told(
    config, db, business, engine, monkeypatch
):
    monkeypatch.setattr(upkeep, "ROWS", 3)
    monkeypatch.setattr(upkeep, "PAGES", 1)
    refused_by(db, business, 5)
    warn_of_refusals(db)
    db.execute(Suppression.__table__.delete().where(Suppression.told_at.is_(None)))
    db.commit()
    warn_of_refusals(db)
    (fact,) = news(engine)
    assert (fact.total, len(fact.recipients)) == (3, 3)
    warn_of_refusals(db)
    assert len(news(engine)) == 1


def test_a_warning_stamped_by_a_clock_that_was_ahead_silences_no_other(
    config, db, business, engine
):
    _, order = recorded(db, business)
    ahead = datetime.now(UTC) + timedelta(days=30)
    db.add(a_row(business, order, cause="refused", told_at=ahead))
    _, other = recorded(db, business, "gone@late.example")
    db.add(a_row(business, other, cause="refused"))
    db.commit()
    with transaction() as session:
        warn_of_refusals(session)
    (fact,) = news(engine)
    assert [one.address for one in fact.recipients] == ["gone@late.example"]


def test_a_closed_account_is_told_nothing_and_forgotten(config, db, business, engine):
    _, order = recorded(db, business)
    db.add(a_row(business, order, cause="refused"))
    db.execute(update(Account).values(closed_at=datetime.now(UTC) - timedelta(days=31)))
    db.commit()
    with transaction() as session:
        warn_of_refusals(session)
        keep(session)
    assert news(engine) == []
    assert db.scalars(select(Suppression)).all() == []


@pytest.mark.parametrize("about", ["a closed account", "orders that are gone"])
def test_what_is_over_goes_in_pages_past_what_somebody_else_holds(
    config, db, business, engine, monkeypatch, about
):
    monkeypatch.setattr(upkeep, "AT_MOST", 2)
    is_closed = about == "a closed account"
    for n in range(5):
        _, order = recorded(db, business, f"zoe{n}@shop.example")
        of = {} if is_closed else {"order_id": new_id(), "since": ago(days=15)}
        db.add(a_row(business, order, **of))
    db.commit()
    if is_closed:
        db.execute(update(Account).values(closed_at=ago(days=31)))
        db.commit()
    with engine.connect() as other:
        held = other.execute(select(Suppression.id).limit(1).with_for_update()).scalar()
        with transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '1s'"))
            keep(session)
        db.rollback()
        assert db.scalars(select(Suppression.id)).all() == [held]
    keep(db)
    db.rollback()
    assert db.scalars(select(Suppression.id)).all() == []


def test_a_database_whose_clock_has_jumped_ahead_forgets_nobody(config, db, business, monkeypatch):
    """Who has left would be mailed again."""
    _, order = recorded(db, business)
    gone = new_id()  # as before a replay of the journal brings it back
    db.add(a_row(business, order, order_id=gone, since=ago(days=8)))
    db.add(a_row(business, order))
    db.execute(update(Account).values(closed_at=ago(days=31)))
    db.commit()
    right = SimpleNamespace(now=lambda zone: datetime.now(zone) - timedelta(days=31))
    monkeypatch.setattr(database, "datetime", right)
    with transaction() as session:
        keep(session)
    assert len(db.scalars(select(Suppression)).all()) == 2


def a_row(business, order, **values):
    hashed = unsubscribe_tokens.unsubscribe_tokens().hashes(business.id, order.customer_email)[0]
    return Suppression(
        account_id=business.id, address_hash=hashed.value, key_id=hashed.key_id,
        by_order_id=order.id,
        **({"cause": "unsubscribed", "address": order.customer_email} | values),
    )  # fmt: skip


def test_the_key_rotates_and_nobody_who_left_is_mailed(
    config, configure, db, business, mailbox, engine, amqp_url
):
    old, new = config.unsubscribe_keys, "e2tR5cV9xJ1mZqYw4uH7oLkD8nBsGfA6pCiT3yQhXvM="
    orders = [recorded(db, business, f"{name}@shop.example")[1] for name in ("zoe", "bola", "x")]
    zoe, bola, erased = orders
    db.add_all([a_row(business, zoe), a_row(business, bola, order_id=bola.id)])
    db.add(a_row(business, erased, address=None))
    db.commit()
    both = configure(unsubscribe_keys=f"{new},{old}")
    with transaction() as session:
        keep(session)
        keep(session)
    states = mailed(both, engine, amqp_url, told("order_status", zoe))
    assert states == {"order_status": "unsubscribed"}
    # The erased one's needs the old key; theirs do not.
    states = mailed(both, engine, amqp_url, told("order_status", erased))
    assert states == {"order_status": "unsubscribed"}
    last = configure(unsubscribe_keys=new)
    for order in (zoe, bola):
        states = mailed(last, engine, amqp_url, told("order_cancelled", order))
        assert states == {"order_cancelled": "unsubscribed"}


def test_a_run_hashes_all_again_and_counts_whatever_is_left(
    config, configure, db, business, engine, monkeypatch
):
    old, new = config.unsubscribe_keys, "e2tR5cV9xJ1mZqYw4uH7oLkD8nBsGfA6pCiT3yQhXvM="
    monkeypatch.setattr(upkeep, "AT_MOST", 5)
    for number in range(13):
        _, order = recorded(db, business, f"zoe{number}@shop.example")
        db.add(a_row(business, order))
    db.add(a_row(business, order, address=None, cause="refused"))
    db.commit()
    configure(unsubscribe_keys=f"{new},{old}")
    with engine.connect() as other, capture_logs() as said:
        held = other.execute(
            select(Suppression.id)
            .where(Suppression.address.is_not(None))
            .limit(1)
            .with_for_update()
        ).scalar()
        with transaction() as session:
            keep(session)
    first = unsubscribe_tokens.unsubscribe_tokens().key_id
    outdated = select(Suppression.id, Suppression.address).where(Suppression.key_id != first)
    db.rollback()
    left = db.execute(outdated).all()
    assert len(left) == 2
    assert held in {row.id for row in left}
    assert None in {row.address for row in left}
    (line,) = (one for one in said if one["event"] == "suppressions_hashed_again")
    assert (line["count"], line["need_an_older_key"]) == (12, 2)


def test_who_left_twice_while_the_key_rotated_is_one(config, configure, db, business):
    old, new = config.unsubscribe_keys, "e2tR5cV9xJ1mZqYw4uH7oLkD8nBsGfA6pCiT3yQhXvM="
    _, order = recorded(db, business)
    db.add(a_row(business, order))
    db.commit()
    configure(unsubscribe_keys=f"{new},{old}")
    db.add(a_row(business, order))
    db.commit()
    with transaction() as session:
        keep(session)
    db.rollback()
    assert len(db.scalars(select(Suppression)).all()) == 1


def test_what_is_about_one_order_ends_with_it(config, db, business):
    _, order = recorded(db, business)
    _, ended = recorded(db, business)
    weeks_ago = datetime.now(UTC) - timedelta(days=15)
    db.add_all(
        [
            a_row(business, order, order_id=order.id, since=weeks_ago),
            a_row(business, ended, order_id=ended.id, since=weeks_ago),
            a_row(business, ended, since=weeks_ago),
            a_row(business, order, order_id=new_id()),
        ]
    )
    db.execute(Order.__table__.delete().where(Order.id == ended.id))
    db.commit()
    with transaction() as session:
        keep(session)
    db.rollback()
    left = {(row.order_id, row.by_order_id) for row in db.scalars(select(Suppression))}
    assert (order.id, order.id) in left
    assert (None, ended.id) in left
    assert (ended.id, ended.id) not in left
    assert len(left) == 3
