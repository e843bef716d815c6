"""Revoked is revoked: whatever is away, whatever a clock says, however late a transaction ends."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jwt
import pytest
from kombu import Connection
from sqlalchemy import delete, text, update
from sqlalchemy.orm import Session

from services.ingress.credentials import rows as secret_rows
from services.ingress.credentials.feed import SecretFeed
from services.ingress.credentials.rows import Position
from services.kyc import handlers
from services.secrets import policies, rotation
from shared.bus.contract.events import (
    AccountBlock,
    AccountChanged,
    KycDecide,
    KycRevoked,
    SecretRevoked,
    SecretRotated,
    decode,
)
from shared.bus.contract.message import Message, message_for
from shared.db.models import OutboxMessage, WebhookPolicy, WebhookSecret
from shared.ids import new_id
from shared.security import webhook_keys
from tests.integration.arrange import (
    account,
    by_each_worker,
    get,
    headers,
    publish,
    received,
    take,
    until,
)
from tests.integration.ingress.conftest import ORDER, Sender, known, ready
from tests.integration.wrong_clocks import set_clock, wrong_worker
from tests.unit.ingress.platforms import orders as platform_orders
from tests.vhosts import purge

MINUTES = 600


@pytest.fixture
def service():
    return "ingress"


@pytest.fixture
def businesses(settings, db):
    made = [account(db, status="approved") for _ in range(2)]
    for business in made:
        rotation.issue(db, business)
        db.add(WebhookPolicy(account_id=business.id, rate_per_second=5))
    db.commit()
    return made


def held(cache, business):
    (secret,) = (s for s in cache._secrets.values() if s.account_id == business.id)
    return secret


REVOKE = "UPDATE webhook_secrets SET state = 'revoked' WHERE account_id = '{0.id}'"
LIMIT = "UPDATE webhook_policies SET rate_per_second = 7 WHERE account_id = '{0.id}'"


def test_no_transaction_is_too_long_for_the_poll(cache, policies, engine, businesses):
    """It changes its rows first, and others commit and are polled before it does."""
    slow, quick = businesses
    asyncio.run(cache.poll())
    with engine.connect() as hand:
        hand.execute(text(REVOKE.format(slow)))
        hand.execute(text(LIMIT.format(slow)))
        for _ in range(3):
            with engine.begin() as other:
                other.execute(text("UPDATE webhook_secrets SET warned_at = now() "
                                   f"WHERE account_id = '{quick.id}'"))  # fmt: skip
                other.execute(text(LIMIT.format(quick)))
            asyncio.run(cache.poll())
        assert (held(cache, slow).state, policies.get(slow.id).rate) == ("active", 5)
        hand.commit()
    asyncio.run(cache.poll())
    assert (held(cache, slow).state, policies.get(slow.id).rate) == ("revoked", 7)


def test_a_row_that_was_stamped_ahead_hides_nothing(cache, policies, engine, businesses):
    slow, ahead = businesses
    with engine.begin() as hand:
        hand.execute(text("SET LOCAL session_replication_role = replica"))
        for table in ("webhook_secrets", "webhook_policies"):
            hand.execute(text(f"UPDATE {table} SET updated_at = now() + interval '1 hour' "
                              f"WHERE account_id = '{ahead.id}'"))  # fmt: skip
    asyncio.run(cache.poll())
    with engine.begin() as hand:
        hand.execute(text(REVOKE.format(slow)))
        hand.execute(text(LIMIT.format(slow)))
    asyncio.run(cache.poll())
    assert (held(cache, slow).state, policies.get(slow.id).rate) == ("revoked", 7)


def test_a_change_comes_once_and_what_was_not_changed_never(cache, engine, businesses):
    asyncio.run(cache.poll())
    assert len(secret_rows.since(cache._position).secrets) == 0
    with engine.begin() as hand:
        hand.execute(text(REVOKE.format(businesses[0])))
    found = secret_rows.since(cache._position)
    assert [row.account_id for row in found.secrets] == [businesses[0].id]
    assert secret_rows.since(found.position).secrets == []


def test_numbers_of_another_server_that_were_restored_do_not_come_at_each_poll(
    cache, engine, businesses
):
    with engine.begin() as hand:
        hand.execute(text("SET LOCAL session_replication_role = replica"))
        hand.execute(text("UPDATE webhook_secrets SET changed_in = 9000000000000"))
    asyncio.run(cache.poll())
    assert secret_rows.since(cache._position).secrets == []
    with engine.begin() as hand:
        hand.execute(text(REVOKE.format(businesses[0])))
    asyncio.run(cache.poll())
    assert held(cache, businesses[0]).state == "revoked"


def test_a_server_that_lost_the_last_changes_is_read_anew(cache, policies, engine, businesses):
    """Promoted without the last transactions: what they said is taken back, a revocation is not."""
    changed, gone = businesses

    async def story():
        await cache.poll()
        seen = cache._position
        with engine.begin() as hand:
            hand.execute(text("SET LOCAL session_replication_role = replica"))
            hand.execute(text(f"UPDATE webhook_secrets SET expires_at = now() + interval '1 day' "
                              f"WHERE account_id = '{changed.id}'"))  # fmt: skip
            hand.execute(text(f"DELETE FROM webhook_secrets WHERE account_id = '{gone.id}'"))
            hand.execute(text("DELETE FROM webhook_policies"))
        cache.revoke(changed.id, [held(cache, changed).id])
        await cache.poll()
        assert len(cache) == 2
        cache._position = Position(seen.snapshot, "another server")
        await cache.poll()

    asyncio.run(story())
    assert len(cache) == 1
    assert held(cache, changed).expires_at < datetime.now(UTC).timestamp() + 2 * 86_400
    assert held(cache, changed).state == "revoked"
    assert (policies.get(changed.id), cache.of(gone.id)) == (None, [])


@pytest.mark.parametrize(
    ("earlier", "later", "leads"),
    [
        (("10:12:", "a"), ("11:12:", "a"), True),
        (("10:12:", "a"), ("10:11:", "a"), False),
        (("10:12:", "a"), ("10:12:", "b"), False),
    ],
)
def test_when_the_changes_since_are_all_that_is_missing(earlier, later, leads):
    assert Position(*earlier).leads_to(Position(*later)) is leads


def test_what_was_revoked_while_a_query_was_under_way_does_not_come_back(
    cache, engine, businesses, monkeypatch
):
    """The answer of before comes after the event, to a worker that did not know the secret."""
    business = businesses[0]

    async def story():
        found = await cache._ask(lambda: secret_rows.newest_of(business.id))
        cache.revoke(business.id, [found.secrets[0].id])
        await cache._put(found)
        assert held(cache, business).state == "revoked"
        assert cache.of(business.id) == []

    asyncio.run(story())


MANY = """
    INSERT INTO webhook_secrets (id, account_id, key_hash, sealed, state, expires_at)
    SELECT gen_random_uuid(), '{0.id}', sha256(i::text::bytea), '', 'revoked',
           now() + interval '90 days'
    FROM generate_series(1, 20000) i
"""


def test_an_account_with_very_many_secrets_costs_what_it_changes(cache, engine, businesses):
    business = businesses[0]
    with engine.begin() as hand:
        hand.execute(text(MANY.format(business)))
    asyncio.run(cache.poll())
    assert len(cache.of(business.id)) == 1
    with engine.begin() as hand:
        hand.execute(text(f"UPDATE webhook_secrets SET warned_at = now() WHERE state = 'active' "
                          f"AND account_id = '{business.id}'"))  # fmt: skip
    assert len(secret_rows.since(cache._position).secrets) == 1
    assert len(secret_rows.newest_of(business.id).secrets) == 1


def test_requests_have_their_turn_while_very_many_rows_come_in(cache, engine, businesses):
    """However many come at once, no more than a slice is taken in at a time."""
    with engine.begin() as hand:
        hand.execute(text(MANY.format(businesses[0])))

    async def story():
        turns = 0

        async def request():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        found = await cache._ask(lambda: secret_rows.Found(
            secret_rows.here().position, secret_rows.here().reading, _all(engine)))  # fmt: skip
        running = asyncio.create_task(request())
        await cache._put(found)
        running.cancel()
        return turns

    assert asyncio.run(story()) >= 20_000 // 500


def _all(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT *, false AS is_synthetic FROM webhook_secrets")
        ).all()


# --- over the bus, through the database, in every worker -----------------------------------------


@pytest.fixture
def gated(behind_gates):
    """A sender that every worker knows, gates before the bus and the database, ways past them."""
    api, bus, database = behind_gates
    sender = known(api)
    until(lambda: sender.standard().status_code == 201, "accepted")
    yield SimpleNamespace(
        api=api, sender=sender, bus=bus, database=database, engine=api.engine, amqp_url=api.amqp_url
    )
    bus.open()
    database.open()
    with api.session() as session, session.begin():
        session.execute(delete(OutboxMessage))
    until(lambda: ready(api) and polled(api), "ready again")


def refused(sender):
    """By every worker, and by either scheme."""
    sends = (sender.send, sender.standard)
    answers = by_each_worker(sender.api.pid, lambda: [send() for send in sends])
    return all(answer.status_code in (401, 503) for both in answers for answer in both)


def polled(api):
    """Whether every worker has just agreed with the database."""
    answers = by_each_worker(api.pid, lambda: get(f"{api.url}/readyz").json())
    return all(answer["secrets_age_seconds"] < 2 for answer in answers)


def waiting(engine, type_):
    with Session(engine) as session:
        rows = session.query(OutboxMessage).filter(OutboxMessage.type == type_).all()
        return [Message(exchange=row.exchange, routing_key=row.routing_key, type=row.type,
                        message_id=str(row.message_id), body=row.body, time=row.time,
                        correlation_id=row.correlation_id, source=row.source)
                for row in rows]  # fmt: skip


def revoke_kyc(gated):
    """As services.kyc does; returns the fact, which is for the relay."""
    with Session(gated.engine) as session, session.begin():
        handlers.decide(
            session, received(KycDecide(decision="revoke", account_id=gated.sender.account_id))
        )
    (fact,) = waiting(gated.engine, KycRevoked.TYPE)
    return fact


@pytest.mark.parametrize("kind", ["secret.revoked", "kyc.revoked", "secret.rotated"])
def test_the_event_itself_revokes_with_no_database(gated, kind):
    gated.database.cut()
    with Session(gated.engine) as session:
        query = session.query(WebhookSecret.id)
        secret_id = query.filter_by(account_id=gated.sender.account_id).scalar()
    about = {"account_id": gated.sender.account_id, "company_name": "x", "email": "a@b.example"}
    if kind == "kyc.revoked":
        message = revoke_kyc(gated)
        assert decode(message.type, message.body).secret_ids == (secret_id,)
    elif kind == "secret.revoked":
        fact = SecretRevoked(**about, secret_ids=(secret_id,), reason="Leaked.")
        message = message_for(fact, source="tests", correlation_id=new_id())
    else:
        now = datetime.now(UTC)
        fact = SecretRotated(**about, secret_id=new_id(), expires_at=now, cause="business",
                             previous_secret_id=secret_id, previous_valid_until=now,
                             revoked_ids=(secret_id,))  # fmt: skip
        message = message_for(fact, source="tests", correlation_id=new_id())
    publish(gated.amqp_url, message)
    until(lambda: refused(gated.sender), "refused by every worker")
    # And when the database comes back with what it knows, which is older in two of the cases.
    gated.database.open()
    until(lambda: polled(gated.api), "polled again by every worker")
    assert refused(gated.sender)


def test_the_event_itself_blocks_with_no_database_and_the_rows_let_in_again(gated):
    gated.database.cut()
    fact = block(gated, blocked=True)
    late = decode(fact.type, fact.body)
    publish(gated.amqp_url, fact)
    until(lambda: blocked(gated.sender), "blocked by every worker")
    gated.database.open()
    until(lambda: polled(gated.api), "polled again by every worker")
    assert blocked(gated.sender)
    publish(gated.amqp_url, block(gated, blocked=False))
    until(lambda: taken(gated.sender), "let in again")
    # A word that comes late, or again, is over with the next look.
    publish(gated.amqp_url, message_for(late, source="tests", correlation_id=new_id()))
    until(lambda: taken(gated.sender), "let in")


def block(gated, *, blocked):
    """As services.secrets does; returns the fact, which is for the relay."""
    command = AccountBlock(account_id=gated.sender.account_id, blocked=blocked)
    with Session(gated.engine) as session, session.begin():
        session.execute(delete(OutboxMessage))
        policies.on_block(session, received(command))
    (fact,) = waiting(gated.engine, AccountChanged.TYPE)
    return fact


def blocked(sender):
    answers = by_each_worker(sender.api.pid, sender.send)
    return all(answer.json().get("code") == "account_blocked" for answer in answers)


def taken(sender):
    return all(answer.status_code == 201 for answer in by_each_worker(sender.api.pid, sender.send))


def test_a_worker_whose_queue_is_taken_away_listens_again(settings, amqp_url, cache, broker):
    """The connection stays, so nothing but the broker's word tells that no event will come."""
    business, vhost = new_id(), amqp_url.rpartition("/")[2]
    fact = SecretRevoked(account_id=business, company_name="x", email="a@b.example",
                         secret_ids=(new_id(),), reason="Leaked.")  # fmt: skip
    told = message_for(fact, source="tests", correlation_id=business)

    async def story():
        feed = SecretFeed(cache, settings.amqp_url, heartbeat=30, poll_seconds=0.1)
        await feed.start()
        await asyncio.to_thread(until, lambda: feed.is_listening, "listening")
        await asyncio.to_thread(
            broker.evaluate,
            f'[rabbit_amqqueue:delete(Q, false, false, <<"tests">>) || '
            f'Q <- rabbit_amqqueue:list(<<"{vhost}">>), '
            "rabbit_amqqueue:is_exclusive(Q)]",
        )
        try:
            await asyncio.to_thread(until, heard, "an event is heard")
        finally:
            await feed.stop()

    def heard():
        publish(amqp_url, told)
        return bool(cache._revoked)

    asyncio.run(story())


def test_the_poll_alone_revokes(gated):
    gated.bus.cut()
    revoke_kyc(gated)
    until(lambda: refused(gated.sender), "refused by every worker")


def test_a_rotation_names_what_it_revoked(settings, db):
    business = account(db, status="approved")
    first = rotation.issue(db, business)
    second = rotation.rotate(db, business, "business")
    rotation.rotate(db, business, "business", revoke_previous=True)
    db.flush()
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence).all()
    facts = [decode(row.type, row.body) for row in rows]
    assert facts[1].revoked_ids == ()
    assert set(facts[2].revoked_ids) == {first.id, second.id}


# --- a worker whose clock is wrong ---------------------------------------------------------------


@pytest.fixture(scope="module", params=[-MINUTES, 0, MINUTES])
def wrong(request, module_amqp_url, module_database_url, tmp_path_factory):
    """How far a worker was ahead when it began, the file of its clock, and the worker."""
    folder, begins = tmp_path_factory.mktemp("wrong"), request.param
    clock = folder / "offset"
    set_clock(clock, begins)
    given = module_amqp_url, module_database_url
    with wrong_worker(folder, *given, clock, ENVIRONMENT="test") as api:
        yield begins, clock, api


def test_a_workers_clock_decides_nothing(wrong, settings):
    begins, clock, api = wrong
    with api.session() as db:
        for jumps_to in (-MINUTES, MINUTES):
            decides_nothing(api, db, clock, begins, jumps_to)


def decides_nothing(api, db, clock, begins, jumps_to):
    made = [account(db, status="approved") for _ in range(3)]
    secrets = [rotation.issue(db, business) for business in made]
    db.commit()
    good, ended, revoked = (_sender(api, *pair) for pair in zip(made, secrets, strict=True))
    set_clock(clock, jumps_to)
    assert [s.send().status_code for s in (good, ended, revoked)] == [201] * 3
    assert good.standard().status_code == 201
    # Ten minutes before and behind the database's time are on either side of the worker's.
    for secret, minutes in ((secrets[0], 5), (secrets[1], -5)):
        end = datetime.now(UTC) + timedelta(minutes=minutes)
        db.execute(
            update(WebhookSecret).where(WebhookSecret.id == secret.id).values(expires_at=end)
        )
    db.execute(
        update(WebhookSecret).where(WebhookSecret.id == secrets[2].id).values(state="revoked")
    )
    db.commit()
    until(lambda: revoked.send().status_code == 401, "revoked")
    assert ended.send().json()["code"] == "secret_expired"
    assert good.send().status_code == 201
    set_clock(clock, begins)
    assert [s.send().status_code for s in (good, ended, revoked)] == [201, 401, 401]


def test_what_a_worker_stamps_is_the_databases_time(wrong, settings):
    """Of two updates the later counts, and two hosts take them."""
    _, _, api = wrong
    with Connection(api.amqp_url) as connection:
        purge(connection)
    with api.session() as db:
        business = account(db, status="approved")
        secret = rotation.issue(db, business)
        db.commit()
    shop_order = platform_orders.raw({"id": 42, "status": "completed", "billing": {
        "email": "zoe@shop.example"}})  # fmt: skip
    sender = _sender(api, business, secret)
    at = datetime.now(UTC).replace(microsecond=0)
    stamped = {"type": "order.created", "timestamp": at.isoformat(), "data": ORDER}
    ahead = stamped | {"timestamp": (at + timedelta(days=1)).isoformat()}
    answers = [sender.send(body, Prefer="receipt") for body in (ORDER, stamped, ahead)]
    signed = {
        "Content-Type": "application/json",
        "X-WC-Webhook-Signature": platform_orders.signature(sender.secret, shop_order),
        "X-WC-Webhook-Topic": "order.created",
        "X-WC-Webhook-Source": "https://kettles.example",
    }
    path = f"/webhooks/{business.id}/woocommerce/"
    answers.append(api.http.post(path, content=shop_order, headers=signed))
    assert [answer.status_code for answer in answers] == [201] * 4
    told = [headers(take(api.amqp_url, "orders.intake")) for _ in answers]
    times = [datetime.fromisoformat(each["ce-time"]) for each in told]
    assert times[1] == at
    assert all(abs(found - at).total_seconds() < MINUTES / 4 for found in times)
    for answer in answers[:3]:
        claims = jwt.decode(answer.json()["receipt"], options={"verify_signature": False})
        assert abs(claims["iat"] - at.timestamp()) < MINUTES / 4


def _sender(api, business, secret):
    raw = webhook_keys.unseal(secret.sealed, secret.id)
    return Sender(
        api, business.id, webhook_keys.encode_key(raw), {}, webhook_keys.encode_standard(raw)
    )
