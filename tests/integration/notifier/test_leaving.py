"""Customers leave by the link in an email, come back, and are mailed only what they want."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest
from sqlalchemy import delete, select

from services.audit.parsing import decode_fact
from services.relay.authors import refusal
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import EmailSuppressionLifted, decode
from shared.db.models import EmailDelivery, EmailSender, Order, OutboxMessage, Suppression
from shared.ids import new_id
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from stack.mailbox import text_of
from tests.integration.arrange import PATIENCE, access_token, account, depth, publish, until
from tests.integration.conftest import running_ingress
from tests.integration.notifier.test_sending import deliveries, notifying, tell
from tests.integration.of_a_file import amqp_url, database_url
from tests.unit.notifier.facts import FACTS

__all__ = ["amqp_url", "database_url"]

PUBLIC = "https://orders.example"
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def config(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port), smtp_timeout="5", public_url=PUBLIC)


@pytest.fixture(scope="module")
def site(module_amqp_url, module_database_url, tmp_path_factory):
    """The public app, beside the notifier."""
    given = {"PUBLIC_URL": PUBLIC, "ENVIRONMENT": "test", "TRACKING_VIEWS_PER_MINUTE": "10000"}
    folder = tmp_path_factory.mktemp("site")
    with running_ingress(folder, module_amqp_url, module_database_url, **given) as api:
        yield api


@pytest.fixture
def business(db):
    """One, in books in which nobody has left and nobody was mailed."""
    for table in (Suppression, EmailDelivery, OutboxMessage):
        db.execute(delete(table))
    return account(db, status="approved")


def recorded(db, business, address="zoe@shop.example"):
    """An order in the books, as the recorder leaves it."""
    fact = FACTS["order_received"]
    order = Order(
        id=new_id(), account_id=business.id, customer_name="Zoë Ade", customer_email=address,
        customer_phone="", item_summary="2 × kettle", address="Lagos", tracking_status="PENDING",
        status_at=business.created_at, status_event_id=new_id(), accepted_at=business.created_at,
    )  # fmt: skip
    db.add(order)
    db.commit()
    return fact, order


def told(template, order, **changes):
    """A fact about an order."""
    values = {
        "order_id": order.id,
        "account_id": order.account_id,
        "customer_email": order.customer_email,
    }
    return msgspec.structs.replace(FACTS[template], **(values | changes))


def mailed(config, engine, amqp_url, *facts):
    """Have facts told; returns the state of each email, by template."""
    messages = tell(amqp_url, *facts)
    ids = {message.message_id for message in messages}
    with notifying(config):
        until(lambda: ids <= {str(row["fact_id"]) for row in deliveries(engine)}, "written down")
    rows = [row for row in deliveries(engine) if str(row["fact_id"]) in ids]
    return {row["template"]: row["state"] for row in rows}


def link_in(mailbox, subject="out for delivery"):
    (email,) = [e for e in mailbox.maildir.emails() if subject in e["Subject"]]
    return email, re.fullmatch(rf"<{PUBLIC}(/\S+)>", str(email["List-Unsubscribe"]))[1]


def click(site, path, body=ONE_CLICK, **headers):
    return httpx.post(site.url + path, content=body, headers=FORM | headers, timeout=PATIENCE)


def test_one_click_ends_the_emails_of_one_business_but_not_its_receipts(
    config, site, db, business, mailbox, engine, amqp_url
):
    _, order = recorded(db, business)
    assert mailed(config, engine, amqp_url, told("order_status", order)) == {"order_status": "sent"}
    email, path = link_in(mailbox)
    assert str(email["List-Unsubscribe-Post"]) == "List-Unsubscribe=One-Click"
    assert PUBLIC + path in text_of(email)

    answer = click(site, path)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers

    _, another = recorded(db, business, "ZOE@Shop.example")
    others = account(db, status="approved")
    _, elsewhere = recorded(db, others)
    assert mailed(
        config, engine, amqp_url,
        told("order_status", order), told("order_cancelled", another),
        told("order_received", another),
    ) == {
        "order_status": "unsubscribed",
        "order_cancelled": "unsubscribed",
        "order_received": "sent",
    }  # fmt: skip
    assert mailed(config, engine, amqp_url, told("order_status", elsewhere)) == {
        "order_status": "sent"
    }
    # Nobody is to look into it, and nothing waits.
    assert depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 0
    # The business's own mail has nothing to do with it, at the same address either.
    own = msgspec.structs.replace(
        FACTS["one_time_code"], account_id=business.id, email="zoe@shop.example"
    )
    assert mailed(config, engine, amqp_url, own) == {"one_time_code": "sent"}


def test_one_link_is_followed_only_so_often_and_others_are_not_held_up(
    db, business, tmp_path, amqp_url, database_url
):
    paths = []
    for _ in range(2):
        _, order = recorded(db, business)
        token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
        paths.append(f"/api/v1/unsubscribe/?token={token}")
    few = {"TRACKING_VIEWS_PER_MINUTE": "2", "WEB_CONCURRENCY": "1"}
    with running_ingress(tmp_path, amqp_url, database_url, **few) as site:
        first = [httpx.get(site.url + paths[0], timeout=PATIENCE) for _ in range(3)]
        assert [answer.status_code for answer in first] == [200, 200, 429]
        assert int(first[-1].headers["retry-after"]) > 0
        assert "Open it again in a minute" in first[-1].text
        assert click(site, paths[0]).status_code == 429
        assert click(site, paths[1]).status_code == 200
        nobodys = [click(site, "/api/v1/unsubscribe/?token=x").status_code for _ in range(3)]
        assert nobodys == [404, 404, 429]


def test_who_comes_back_is_mailed_again(config, site, db, business, mailbox, engine, amqp_url):
    _, order = recorded(db, business)
    mailed(config, engine, amqp_url, told("order_status", order))
    _, path = link_in(mailbox)
    click(site, path)
    click(site, path)
    assert len(db.scalars(select(Suppression)).all()) == 1
    assert "Get them again" in click(site, path, b"do=order").text
    assert "again" in click(site, path, b"do=back").text
    db.rollback()
    assert db.scalars(select(Suppression)).all() == []
    assert mailed(config, engine, amqp_url, told("order_cancelled", order)) == {
        "order_cancelled": "sent"
    }


def test_one_order_alone(config, site, db, business, mailbox, engine, amqp_url):
    _, order = recorded(db, business)
    _, another = recorded(db, business)
    mailed(config, engine, amqp_url, told("order_status", order))
    _, path = link_in(mailbox)
    assert click(site, path, b"do=order").status_code == 200
    assert mailed(config, engine, amqp_url, told("order_cancelled", order)) == {
        "order_cancelled": "unsubscribed"
    }
    assert mailed(config, engine, amqp_url, told("order_cancelled", another)) == {
        "order_cancelled": "sent"
    }


def test_a_get_changes_nothing_and_shows_nobody(
    config, site, db, business, mailbox, engine, amqp_url
):
    """Scanners open the links of an email, and HEAD them."""
    _, order = recorded(db, business)
    mailed(config, engine, amqp_url, told("order_status", order))
    _, path = link_in(mailbox)
    for _ in range(3):
        page = httpx.get(site.url + path, timeout=PATIENCE)
        assert httpx.head(site.url + path, timeout=PATIENCE).status_code == 200
    assert page.status_code == 200
    assert db.scalars(select(Suppression)).all() == []
    assert page.text.count("<button") == 2
    assert "zoe" not in page.text.lower()
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "set-cookie" not in page.headers


def test_the_page_is_in_the_language_of_the_emails(site, db, business):
    _, order = recorded(db, business)
    db.add(EmailSender(account_id=business.id, language="fr"))
    db.commit()
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    path = f"/unsubscribe/?token={token}"
    assert "Arrêter tous ceux de" in site.http.get(path).text
    left = site.http.post(path, content=b"do=all", headers=FORM).text
    assert '<html lang="fr">' in left
    assert "Vous ne recevez plus" in left


def test_mail_programs_may_send_the_form_in_either_encoding(site, db, business):
    """RFC 8058, 3.2."""
    _, order = recorded(db, business)
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    answer = httpx.post(
        f"{site.url}/api/v1/unsubscribe/?token={token}",
        files={"List-Unsubscribe": (None, "One-Click")},
        timeout=PATIENCE,
    )
    assert answer.status_code == 200
    (row,) = db.scalars(select(Suppression)).all()
    assert (row.address, row.by_order_id, row.order_id) == ("zoe@shop.example", order.id, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"List-Unsubscribe=One-Click&x=1",
        b"List-Unsubscribe=one-click",
        b"List-Unsubscribe=One-Click&List-Unsubscribe=One-Click",
        b"do=everything",
        b"do=all&do=back",
        b"\xff\xfe",
        b"&".join(b"a%d=" % n for n in range(20)),
    ],
)
def test_no_other_body_does_anything(site, db, business, body):
    _, order = recorded(db, business)
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    path = f"/api/v1/unsubscribe/?token={token}"
    assert click(site, path, body).status_code == 400
    assert click(site, path, b"x" * 5_000).status_code == 413
    assert db.scalars(select(Suppression)).all() == []


def test_a_token_that_is_no_good_is_answered_alike_and_asks_nothing(site, db, business):
    _, order = recorded(db, business)
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    bad = ["", "x", token[:-1], "A" + token[1:], token[:-2] + "AA", "%00" * 30, token + token]
    answers = {
        (answer.status_code, answer.text, answer.headers["content-type"])
        for each in bad
        for answer in (
            httpx.get(f"{site.url}/api/v1/unsubscribe/?token={each}", timeout=PATIENCE),
            click(site, f"/api/v1/unsubscribe/?token={each}"),
        )
    }
    assert len(answers) == 1
    assert {status for status, _, _ in answers} == {404}
    assert db.scalars(select(Suppression)).all() == []


def test_no_token_is_logged(config, tmp_path, amqp_url, database_url, db, business, database):
    _, order = recorded(db, business)
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    with running_ingress(tmp_path, amqp_url, database_url, LOG_LEVEL="DEBUG") as api:
        path = f"/api/v1/unsubscribe/?token={token}"
        assert click(api, path).status_code == 200
        # A handler that breaks, which is what is logged at length.
        db.connection().exec_driver_sql("ALTER TABLE suppressions RENAME TO away")
        db.commit()
        assert click(api, path).status_code == 500
        db.connection().exec_driver_sql("ALTER TABLE away RENAME TO suppressions")
        db.commit()
        log = (tmp_path / "ingress.log").read_text()
    assert "unhandled_error" in log
    assert token not in log
    assert token[:40] not in log


def test_the_business_sees_who_has_left_and_cannot_take_it_back(site, db, business):
    _, order = recorded(db, business)
    order.order_number = "A-1001"
    db.commit()
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    click(site, f"/api/v1/unsubscribe/?token={token}", b"do=order")
    click(site, f"/api/v1/unsubscribe/?token={token}", b"do=all")
    bearer = {"Authorization": f"Bearer {access_token(business.id)}"}
    first = site.http.get("/suppressions/?limit=1", headers=bearer).json()
    second = site.http.get(f"/suppressions/?cursor={first['next']}", headers=bearer).json()
    whole, one = first["results"][0], second["results"][0]
    assert second["next"] is None
    assert (whole["cause"], whole["address"]) == ("unsubscribed", "zoe@shop.example")
    assert (whole["order_id"], one["order_id"]) == (None, str(order.id))
    assert [(row["by_order_id"], row["order_number"]) for row in (whole, one)] == [
        (str(order.id), "A-1001")
    ] * 2
    refused = site.http.delete(f"/suppressions/{whole['id']}/", headers=bearer)
    assert (refused.status_code, refused.json()["code"]) == (409, "customer_unsubscribed")
    other = {"Authorization": f"Bearer {access_token(account(db).id)}"}
    assert site.http.get("/suppressions/", headers=other).json()["results"] == []
    assert site.http.delete(f"/suppressions/{whole['id']}/", headers=other).status_code == 404
    assert site.http.get("/suppressions/?cause=refused", headers=bearer).json()["results"] == []


def test_an_address_that_a_business_has_mailed_again_is_told_to_the_audit_log(site, db, business):
    _, order = recorded(db, business)
    found = Suppression(
        by_order_id=order.id,
        account_id=business.id, cause="refused", address_hash=b"x" * 32, key_id=b"k" * 4,
        address="zoe@shop.example", smtp_code=550, response="5.1.1 nobody",
    )  # fmt: skip
    db.add(found)
    db.commit()
    bearer = {"Authorization": f"Bearer {access_token(business.id)}"}
    path = f"/suppressions/{found.id}/"
    assert site.http.delete(path, headers=bearer).status_code == 204
    assert site.http.delete(path, headers=bearer).status_code == 404
    rows = db.query(OutboxMessage).filter_by(type=EmailSuppressionLifted.TYPE)
    (row,) = rows
    fact = decode(row.type, row.body)
    assert (fact.account_id, fact.suppression_id) == (business.id, found.id)
    assert b"zoe@shop.example" not in bytes(row.body)
    # The service whose API it is may say so, and the audit log knows who it was.
    assert not refusal("fellow_ingress", row.exchange, row.routing_key, row.type)
    incoming = RawDelivery(
        bytes(row.body), {"type": row.type, "message_id": str(row.message_id)}, {}, ""
    )
    told = decode_fact(incoming).data
    assert (told.actor, told.address) == (business.email, fact.address)
    assert topology.takes(topology.AUDIT, row.exchange, row.routing_key)


def test_many_clicks_at_once_are_one(site, db, business):
    _, order = recorded(db, business)
    token = unsubscribe_tokens().make(business.id, order.id, order.customer_email)
    path = f"/api/v1/unsubscribe/?token={token}"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: click(site, path).status_code, range(24)))
    assert set(answers) == {200}
    assert len(db.scalars(select(Suppression)).all()) == 1


def test_an_email_that_is_out_stays_one_that_was_sent(
    config, site, db, business, mailbox, engine, amqp_url
):
    """Who leaves after it went changes nothing in the books."""
    _, order = recorded(db, business)
    (message,) = tell(amqp_url, told("order_status", order))
    with notifying(config):
        until(lambda: deliveries(engine), "sent")
    _, path = link_in(mailbox)
    click(site, path)
    publish(amqp_url, message)
    with notifying(config):
        pass
    states = [row.state for row in db.scalars(select(EmailDelivery))]
    assert states == ["sent"]
