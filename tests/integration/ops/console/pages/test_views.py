"""Who was shown personal data is in the audit log; the data itself is not."""

from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import delete, insert, select
from typer.testing import CliRunner

from services.ops.cli import app
from services.ops.console.web.mount import FORM, SESSION
from services.ops.users import users
from shared.bus.contract.events import OpsDataViewed, decode
from shared.db.models import AuditEntry, OutboxMessage
from shared.ids import new_id
from shared.security.audit_chain import GENESIS
from shared.web.tokens import form_token
from tests.integration.arrange import PATIENCE, account, an_order, depth, publish_raw, until
from tests.integration.ops.console.running import running_console

PASSWORD = "correct horse battery"


def views(db):
    """What was told since the last time."""
    rows = db.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.type == OpsDataViewed.TYPE)
        .order_by(OutboxMessage.sequence)
    ).all()
    facts = [decode(row.type, row.body) for row in rows]
    db.execute(delete(OutboxMessage))
    db.commit()
    return facts


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def business(db):
    return account(db, status="pending", email="it@kettle.example", company_name="Kettle & Co")


@pytest.fixture
def order(db, business):
    found = an_order(business.id)
    db.add(found)
    db.commit()
    return found


@pytest.fixture
def audit_row(db):
    db.add(
        AuditEntry(
            sequence=1,
            event_id=new_id(),
            type="account.signed_in",
            happened_at=datetime.now(UTC),
            actor="it@kettle.example",
            address="203.0.113.7",
            correlation_id="",
            data="{}",
            previous_hash=GENESIS,
            hash=GENESIS,
        )
    )
    db.commit()


@pytest.fixture
def ada(settings, amqp_url, database_url, db, tmp_path):
    """A signed-in browser of somebody who may everything."""
    users.put(db, "ada", "act", PASSWORD)
    db.commit()
    with (
        running_console(tmp_path, amqp_url, database_url) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
    ):
        client.get("/sign-in")
        form = {"name": "ada", "password": PASSWORD, "form_token": form_token(client.cookies[FORM])}
        assert client.post("/sign-in", data=form).status_code == 303
        yield client


def test_each_view_at_the_console_is_told(ada, db, business, order, audit_row, amqp_url):
    publish_raw(
        amqp_url,
        "dead",
        "orders.intake",
        b'{"email": "zoe@shop.example"}',
        message_id="letter",
        type="order.created",
        delivery_mode=2,
    )
    until(lambda: depth(amqp_url, "orders.intake.dead"), "it lies there")
    views(db)
    form = {"form_token": form_token(ada.cookies[SESSION]), "decision": "approve"}
    letter = {"id": "letter", "type": "order.created", "body": "{}"}
    looks = {
        ("GET /kyc", str(business.id)): lambda: ada.get("/kyc"),
        ("POST /kyc/{account_id}", str(business.id)): lambda: ada.post(
            f"/kyc/{business.id}", data=form
        ),
        ("GET /orders/{order_id}", str(order.id)): lambda: ada.get(f"/orders/{order.id}"),
        ("GET /accounts/{account_id}", str(business.id)): lambda: ada.get(
            f"/accounts/{business.id}"
        ),
        ("GET /find", str(business.id)): lambda: ada.get("/find?q=Kettl"),
        ("GET /audit", "1 rows from 1 to 1"): lambda: ada.get("/audit?words=it@kettle.example"),
        ("GET /audit.csv", "1 rows from 1 to 1"): lambda: ada.get("/audit.csv"),
        ("GET /dead/{queue}/letter", "orders.intake", "letter"): lambda: ada.get(
            "/dead/orders.intake/letter?id=letter"
        ),
        ("POST /dead/{queue}/edit", "orders.intake", "letter"): lambda: ada.post(
            "/dead/orders.intake/edit", data=form | letter
        ),
    }
    # One business alone is gone to at once: another one for the list.
    account(db, status="approved", email="two@kettle.example", company_name="Kettles")
    for (page, *of), look in looks.items():
        answer = look()
        assert answer.status_code in (200, 400), (page, answer.text)
        (fact,) = views(db)
        assert (fact.by, fact.address, fact.page) == ("ada", "127.0.0.1", page)
        assert set(of) <= set(fact.of)
        assert "@" not in str(fact)
    # What shows nothing of a person is not told.
    for path in ("/", "/dead", "/second-factor", f"/kyc/outcomes/{new_id()}?account={new_id()}"):
        assert ada.get(path).status_code == 200
        assert views(db) == []


def fellow(*arguments):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (("customer", "export", "zoe@shop.example"), "fellow customer export"),
        (("trail", "{order}"), "fellow trail"),
        (("account", "show", "{business}"), "fellow account show"),
        (("kyc", "list"), "fellow kyc list"),
        (("audit", "list", "--csv"), "fellow audit list"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_each_view_at_the_shell_is_told(settings, db, business, order, audit_row, arguments, page):
    ids = {"order": order.id, "business": business.id}
    shown = fellow(*(argument.format(**ids) for argument in arguments))
    assert shown
    (fact,) = views(db)
    assert (fact.by, fact.page) == ("fellow_ops", page)
    assert "@shop" not in str(fact)
    assert "@kettle" not in str(fact)


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (("dead", "list", "orders.intake"), "fellow dead list"),
        (("dead", "show", "orders.intake", "letter"), "fellow dead show"),
        (("dead", "waiting"), "fellow dead waiting"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_each_view_of_a_message_at_the_shell_is_told(settings, db, amqp_url, arguments, page):
    for exchange in ("dead", "retry.1h"):
        publish_raw(
            amqp_url,
            exchange,
            "orders.intake",
            b'{"email": "zoe@shop.example"}',
            message_id="letter",
            type="order.created",
            delivery_mode=2,
        )
    until(lambda: depth(amqp_url, "orders.intake.dead"), "it lies there")
    until(lambda: depth(amqp_url, "retry.1h"), "it waits there")
    assert fellow(*arguments)
    (fact,) = views(db)
    assert (fact.by, fact.page) == ("fellow_ops", page)
    assert "@shop" not in str(fact)


def test_a_parked_message_that_is_listed_or_edited_is_told(settings, db, tmp_path):
    db.execute(
        insert(OutboxMessage).values(
            message_id=new_id(),
            exchange="events",
            routing_key="order.recorded",
            type="order.recorded",
            correlation_id="",
            source="services.orders",
            time=datetime.now(UTC),
            body=b'{"email": "zoe@shop.example"}',
            parked_at=datetime.now(UTC),
            reason="a test",
        )
    )
    db.commit()
    number = db.scalar(select(OutboxMessage.sequence))
    CliRunner().invoke(app, ["outbox", "list", "--json"])
    CliRunner().invoke(app, ["outbox", "edit", str(number), "--yes"], env={"VISUAL": "true"})
    assert [fact.page for fact in views(db)] == ["fellow outbox list", "fellow outbox edit"]


def test_dead_letters_are_shown_with_the_database_away(settings, amqp_url, monkeypatch):
    """That is when people look there; they are told that the audit log was not."""
    publish_raw(amqp_url, "dead", "orders.intake", b"{}", message_id="letter", delivery_mode=2)
    until(lambda: depth(amqp_url, "orders.intake.dead"), "it lies there")
    monkeypatch.delenv("DATABASE_URL")
    done = CliRunner().invoke(app, ("dead", "show", "orders.intake", "letter"))
    assert done.exit_code == 0, done.stderr
    assert "The audit log was not told" in done.stderr
