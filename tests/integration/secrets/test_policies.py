"""Operators' rates: a command on the bus becomes a row, and leaves the allowlist alone."""

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.secrets import policies
from services.secrets.__main__ import wire
from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import AccountBlock, WebhookAllowlistChanged, WebhookLimit
from shared.bus.contract.message import message_for
from shared.db.models import Account, OutboxMessage, WebhookPolicy
from shared.db.session import transaction
from shared.http.errors import ApiError
from shared.http.route import Call
from shared.ids import new_id
from tests.integration.arrange import (
    account,
    consuming,
    depth,
    facts,
    headers,
    publish,
    received,
    take,
    until,
)


def policy_of(db, account_):
    db.rollback()
    return db.get(WebhookPolicy, account_.id, populate_existing=True)


def limit(account_, per_second):
    with transaction() as session:
        command = WebhookLimit(account_id=account_.id, per_second=per_second)
        policies.on_limit(session, received(command))


def test_a_command_on_the_bus_sets_the_rate(settings, db, amqp_url):
    business = account(db)
    command = WebhookLimit(account_id=business.id, per_second=50)
    with consuming(settings, *wire(settings).subscriptions):
        publish(amqp_url, message_for(command, source="tests", correlation_id=business.id))
        until(lambda: policy_of(db, business), "set")
    assert policy_of(db, business).rate_per_second == 50


def test_rate_and_allowlist_leave_each_other_alone(settings, db):
    business = account(db)
    db.execute(
        insert(WebhookPolicy).values(account_id=business.id, allowed_networks=["203.0.113.0/24"])
    )
    db.commit()
    stamped = policy_of(db, business).changed_in
    limit(business, 50)
    policy = policy_of(db, business)
    assert (policy.allowed_networks, policy.rate_per_second) == (["203.0.113.0/24"], 50)
    # The caches poll by it.
    assert policy.changed_in > stamped
    limit(business, None)
    assert policy_of(db, business).rate_per_second is None


def test_an_account_that_is_not_there(settings, db):
    command = WebhookLimit(account_id=new_id(), per_second=50)
    with pytest.raises(Permanent, match="no such account"), transaction() as session:
        policies.on_limit(session, received(command))


def test_a_command_on_the_bus_blocks_and_unblocks_and_the_owner_is_told_once(
    settings, db, amqp_url
):
    business = account(db)
    with consuming(settings, *wire(settings).subscriptions):
        for blocked in (True, True, False):
            command = AccountBlock(account_id=business.id, blocked=blocked, reason="Complaints.")
            publish(amqp_url, message_for(command, source="tests", correlation_id=business.id))
        until(
            lambda: (
                (policy := policy_of(db, business))
                and policy.change
                and told(db)[-1:] == [("unblocked", "Complaints.", business.email)]
            ),
            "unblocked",
        )
    assert [what for what, _, __ in told(db)] == ["blocked", "unblocked"]
    assert policy_of(db, business).blocked_at is None


@pytest.mark.parametrize("is_one_batch", [True, False], ids=["at once", "later"])
def test_another_command_under_an_id_that_was_used_is_a_dead_letter(
    settings, db, amqp_url, is_one_batch
):
    """Its sender has given it the id, and would wait for what never comes."""
    business, one_id = account(db), new_id()
    commands = [
        AccountBlock(account_id=business.id, blocked=blocked, reason="Complaints.")
        for blocked in (True, True, False)
    ]
    sent = [
        message_for(one, source="tests", correlation_id=business.id, message_id=one_id)
        for one in commands
    ]
    queue = topology.SECRETS_ROTATE
    if is_one_batch:
        publish(amqp_url, *sent)
    with consuming(settings, *wire(settings).subscriptions):
        if not is_one_batch:
            for message in sent:
                publish(amqp_url, message)
                until(lambda: depth(amqp_url, queue.name) == 0, "taken")
        until(lambda: depth(amqp_url, queue.dead) == 1, "the other one is a dead letter")
        until(lambda: depth(amqp_url, queue.name) == 0, "the rest is done")
    letter = take(amqp_url, queue.dead)
    assert (letter.body, headers(letter)["x-attempt"]) == (sent[2].body, 1)
    assert "another command was carried out under this message_id" in headers(letter)["x-reason"]
    assert policy_of(db, business).blocked_at is not None
    assert depth(amqp_url, queue.dead) == 0


def test_each_is_told_though_a_client_gives_its_messages_one_id(settings, db):
    """The notifier and the audit log know facts by their ids for longer than the inbox does."""
    business, one_id = account(db), new_id()
    for blocked in (True, False):
        command = AccountBlock(account_id=business.id, blocked=blocked, reason="Complaints.")
        with transaction() as session:
            policies.on_block(session, replace(received(command), id=one_id))
    assert [what for what, _, __ in told(db)] == ["blocked", "unblocked"]
    assert len(set(db.scalars(select(OutboxMessage.message_id)))) == 2


@pytest.mark.parametrize("service", ["ingress"])
@pytest.mark.parametrize(
    ("route", "body"),
    [
        (policies.replace, policies.Allowlist(allowed_networks=["203.0.113.0/24"])),
        (policies.choose_schemes, policies.Schemes(standard_webhooks_only=True)),
    ],
)
def test_what_was_let_in_before_an_account_was_closed_changes_nothing(settings, db, route, body):
    business = account(db)
    db.execute(update(Account).values(closed_at=func.now(), email="x@closed.invalid"))
    db.commit()
    with pytest.raises(ApiError, match="no longer exists"), transaction() as session:
        route(session, Call(business.id, body, None, {}, "192.0.2.1"))
    assert policy_of(db, business) is None
    assert facts(db) == []


def told(db):
    return [(fact.what, fact.reason, fact.email) for fact in facts(db, "account.changed")]


@pytest.mark.parametrize("service", ["ingress"])
def test_an_allowlist_that_says_the_same_is_told_to_nobody(settings, db):
    business = account(db)

    def put(*networks):
        body = policies.Allowlist(allowed_networks=list(networks))
        with transaction() as session:
            policies.replace(session, Call(business.id, body, None, {}, "192.0.2.1"))
        return [list(fact.allowed_networks) for fact in facts(db, WebhookAllowlistChanged.TYPE)]

    assert put() == []
    one, other = "203.0.113.0/24", "198.51.100.0/24"
    assert put(one, other) == [[one, other]]
    stamped = policy_of(db, business).changed_in
    for same in ((one, other), (other, one), (one, one, other)):
        assert put(*same) == [[one, other]]
    assert policy_of(db, business).changed_in == stamped
    assert put(one) == [[one, other], [one]]
