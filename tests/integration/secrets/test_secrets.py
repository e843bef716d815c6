"""Webhook secrets: issued, rotated, revoked, expired; by fact, command, schedule and HTTP."""

import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError

from services.secrets import handlers, resealing, rotation, schedule
from services.secrets.__main__ import wire
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    EVENT_TYPES,
    KycApproved,
    KycRevoked,
    SecretExpiring,
    SecretRevoke,
    SecretRotate,
    decode,
)
from shared.bus.contract.message import message_for
from shared.db.models import KycApplication, OutboxMessage, WebhookSecret, WebhookSecretUse
from shared.db.session import database_time, transaction
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError
from tests.integration.arrange import (
    access_token,
    account,
    ago,
    ahead,
    consuming,
    publish,
    received,
    until,
)


def approved_fact(account_):
    return KycApproved(
        account_id=account_.id,
        company_name="Kettle & Co",
        email=account_.email,
        application_id=account_.id,
        decided_by="op",
    )


def revoked_fact(account_, application_id):
    about = msgspec.structs.asdict(approved_fact(account_)) | {"application_id": application_id}
    return KycRevoked(**about, reason="Fraud.")


def issue(account_):
    with transaction() as session:
        handlers.on_approved(session, received(approved_fact(account_)))


def secrets_of(db, account_):
    db.rollback()
    query = (
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_.id)
        .order_by(WebhookSecret.issued_at)
        .execution_options(populate_existing=True)
    )
    return db.scalars(query).all()


def states(db, account_):
    return [secret.state for secret in secrets_of(db, account_)]


def facts(db):
    db.rollback()
    rows = db.execute(
        select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
    )
    return [decode(type_, body) for type_, body in rows]


def types(db):
    return [fact.TYPE for fact in facts(db)]


def move_expiry(db, account_, when):
    """As if they had been made so much earlier."""
    values = {"expires_at": when, "issued_at": when - timedelta(days=90)}
    db.execute(update(WebhookSecret).where(WebhookSecret.account_id == account_.id).values(values))
    db.commit()


def tick():
    with transaction() as session:
        schedule.tick(session)


@pytest.fixture
def business(settings, db):
    made = account(db, status="approved")
    issue(made)
    return made


def test_an_approval_issues_one_secret(db, business):
    issue(business)
    (secret,) = secrets_of(db, business)
    assert secret.state == "active"
    life = secret.expires_at - secret.issued_at
    assert life == timedelta(days=90)
    assert types(db) == ["secret.issued"]


def test_the_key_is_found_by_its_hash_and_opens_only_for_its_row(db, business):
    (secret,) = secrets_of(db, business)
    raw = webhook_keys.unseal(secret.sealed, secret.id)
    key = webhook_keys.encode_key(raw)
    assert len(raw) == 32
    assert key.startswith("whsk_")
    assert webhook_keys.key_hash(key.encode()) == secret.key_hash
    with pytest.raises(Exception, match="another context"):
        webhook_keys.unseal(secret.sealed, business.id)


def test_no_fact_carries_a_secret(db, business):
    with transaction() as session:
        handlers.on_rotate(
            session, received(SecretRotate(account_id=business.id, cause="operator"))
        )
    keys = [
        webhook_keys.encode_key(webhook_keys.unseal(s.sealed, s.id))
        for s in secrets_of(db, business)
    ]
    bodies = [bytes(b) for b in db.scalars(select(OutboxMessage.body))]
    assert len(keys) == 2
    assert bodies
    assert not any(key[5:].encode() in body for key in keys for body in bodies)


def test_the_database_holds_at_most_one_active_secret(db, business):
    (secret,) = secrets_of(db, business)
    db.add(
        WebhookSecret(
            account_id=business.id,
            key_hash=b"x",
            sealed=b"x",
            state="active",
            expires_at=secret.expires_at,
        )
    )
    with pytest.raises(IntegrityError, match="uq_webhook_secrets_active"):
        db.flush()
    db.rollback()


def test_an_approval_taken_back_meanwhile_issues_nothing(settings, db):
    business = account(db, status="revoked")
    issue(business)
    assert states(db, business) == []


def test_a_revocation_revokes_all_and_is_told(db, business):
    with transaction() as session:
        handlers.on_rotate(
            session, received(SecretRotate(account_id=business.id, cause="operator"))
        )
    assert states(db, business) == ["retiring", "active"]
    application = db.scalars(select(KycApplication)).one()
    application.status = "revoked"
    db.commit()
    assert states(db, business) == ["revoked", "revoked"]
    with transaction() as session:
        handlers.on_revoked(session, received(revoked_fact(business, application.id)))
    fact = facts(db)[-1]
    assert fact.reason == "Fraud."
    assert set(fact.secret_ids) == {secret.id for secret in secrets_of(db, business)}


def test_a_rotation_keeps_the_old_one_until_its_own_end(db, business):
    with transaction() as session:
        handlers.on_rotate(
            session, received(SecretRotate(account_id=business.id, cause="operator"))
        )
    old, new = secrets_of(db, business)
    assert (old.state, new.state) == ("retiring", "active")
    fact = facts(db)[-1]
    assert (fact.secret_id, fact.previous_secret_id) == (new.id, old.id)
    assert fact.previous_valid_until == old.expires_at


def test_a_second_use_of_an_expired_secret_does_not_replace_its_replacement(db, business):
    (old,) = secrets_of(db, business)
    move_expiry(db, business, ago(days=1))
    command = SecretRotate(account_id=business.id, cause="expired_use", secret_id=old.id)
    for _ in range(3):
        with transaction() as session:
            handlers.on_rotate(session, received(command))
    assert states(db, business) == ["expired", "active"]


def test_a_revoked_secret_is_not_replaced_by_its_use(db, business):
    (old,) = secrets_of(db, business)
    with transaction() as session:
        handlers.on_revoke(session, received(SecretRevoke(account_id=business.id, reason="Lost.")))
    with transaction() as session:
        handlers.on_rotate(
            session,
            received(SecretRotate(account_id=business.id, cause="expired_use", secret_id=old.id)),
        )
    assert states(db, business) == ["revoked"]


def an_expired_one(db, business):
    (old,) = secrets_of(db, business)
    move_expiry(db, business, ago(days=1))
    db.execute(update(WebhookSecret).values(state="expired"))
    db.commit()
    return old


def use_expired(business, secret):
    command = SecretRotate(account_id=business.id, cause="expired_use", secret_id=secret.id)
    with transaction() as session:
        handlers.on_rotate(session, received(command))


@pytest.mark.parametrize("named", [True, False])
def test_an_expired_secret_that_is_revoked_is_not_replaced_by_its_use(db, business, named):
    """Nobody is told of it: it worked no more."""
    old = an_expired_one(db, business)
    before = types(db)
    secret_id = old.id if named else None
    revoke = SecretRevoke(account_id=business.id, secret_id=secret_id, reason="It leaked.")
    with transaction() as session:
        handlers.on_revoke(session, received(revoke))
    use_expired(business, old)
    assert states(db, business) == ["revoked"]
    assert types(db) == before


def test_an_expired_secret_ends_with_the_approval_and_nobody_is_told(db, business, engine):
    old = an_expired_one(db, business)
    before = types(db)
    (application,) = db.query(KycApplication)
    with engine.begin() as hand:
        hand.execute(text("UPDATE kyc_applications SET status = 'revoked'"))
    with transaction() as session:
        handlers.on_revoked(session, received(revoked_fact(business, application.id)))
    # A worker that has not heard of it yet.
    use_expired(business, old)
    assert states(db, business) == ["revoked"]
    assert types(db) == before


def test_the_schedule_leaves_alone_what_is_in_the_first_half_of_its_life(db, business):
    """Whatever is set: each would be due as soon as it is made, and mailed to the business."""
    now = datetime.now(UTC)
    young = {"issued_at": now - timedelta(days=4), "expires_at": now + timedelta(days=6)}
    db.execute(update(WebhookSecret).values(young))
    db.commit()
    tick()
    assert states(db, business) == ["active"]
    old = {"issued_at": now - timedelta(days=6), "expires_at": now + timedelta(days=4)}
    db.execute(update(WebhookSecret).values(old))
    db.commit()
    tick()
    assert states(db, business) == ["retiring", "active"]


def test_no_rotation_without_approval(settings, db):
    business = account(db, status="rejected")
    command = SecretRotate(account_id=business.id, cause="operator")
    with pytest.raises(Permanent, match="not approved"), transaction() as session:
        handlers.on_rotate(session, received(command))


def test_rotations_at_once_come_one_after_the_other(db, business):
    def rotate(_):
        with transaction() as session:
            handlers.on_rotate(
                session, received(SecretRotate(account_id=business.id, cause="operator"))
            )

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(rotate, range(6)))
    assert states(db, business) == [*["retiring"] * 6, "active"]


def test_the_schedule_rotates_ahead_and_only_once(db, business):
    tick()
    assert states(db, business) == ["active"]
    move_expiry(db, business, ahead(days=13))
    tick()
    tick()
    assert states(db, business) == ["retiring", "active"]
    assert facts(db)[-1].cause == "scheduled"


def test_the_schedule_replaces_what_has_ended_without_any_request(db, business):
    move_expiry(db, business, ago(seconds=1))
    tick()
    assert states(db, business) == ["expired", "active"]


def test_the_schedule_warns_once_and_then_marks_the_end(db, business):
    move_expiry(db, business, ahead(days=13))
    tick()
    old = secrets_of(db, business)[0]
    db.execute(
        update(WebhookSecret).where(WebhookSecret.id == old.id).values(expires_at=ahead(days=2))
    )
    db.commit()
    tick()
    tick()
    assert types(db).count("secret.expiring") == 1
    db.execute(
        update(WebhookSecret).where(WebhookSecret.id == old.id).values(expires_at=ago(seconds=1))
    )
    db.commit()
    tick()
    assert states(db, business) == ["expired", "active"]


def use(db, secret, accepted, at=None):
    at = at or ago()
    db.add(
        WebhookSecretUse(
            secret_id=secret.id,
            hour_of_day=at.hour,
            hour=at.replace(minute=0, second=0, microsecond=0),
            accepted=accepted,
            last_used_at=at,
        )
    )
    db.commit()
    return at


def warnings(db):
    return [fact for fact in facts(db) if isinstance(fact, SecretExpiring)]


def retiring(db, business, ends_in):
    """A replaced secret that ends then, and the present one."""
    move_expiry(db, business, ahead(days=13))
    tick()
    old, new = secrets_of(db, business)
    ends(db, old, ends_in)
    return old, new


def ends(db, secret, in_):
    db.execute(
        update(WebhookSecret)
        .where(WebhookSecret.id == secret.id)
        .values(expires_at=datetime.now(UTC) + in_)
    )
    db.commit()


def warned_days_ago(db, secret):
    db.execute(
        update(WebhookSecret)
        .where(WebhookSecret.id == secret.id)
        .values(warned_at=datetime.now(UTC) - timedelta(days=2))
    )
    db.commit()


@contextmanager
def database_clock_ahead(db, days):
    """A transaction in which the database's clock is ahead of this host's."""
    db.execute(text("CREATE SCHEMA IF NOT EXISTS wrong"))
    db.execute(text("GRANT USAGE ON SCHEMA wrong TO PUBLIC"))
    db.execute(
        text(
            "CREATE OR REPLACE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            f"AS 'SELECT pg_catalog.clock_timestamp() + interval ''{days} days'''"
        )
    )
    db.commit()
    with transaction() as session:
        # Names without a schema are looked up in this order.
        session.execute(text("SET LOCAL search_path = wrong, pg_catalog, public"))
        assert database_time(session) > ahead(days=days - 1)
        yield session


@pytest.mark.parametrize("days", [20, 91])
def test_a_database_clock_that_is_ahead_ends_no_secret(db, business, days):
    """A promoted standby's clock may be wrong for a minute, and an expired secret stays so."""
    old, new = retiring(db, business, timedelta(days=10))
    with database_clock_ahead(db, days) as session:
        schedule.tick(session)
    assert [(one.state, one.warned_at) for one in secrets_of(db, business)] == [
        ("retiring", None),
        ("active", None),
    ]
    command = SecretRotate(account_id=business.id, cause="expired_use", secret_id=new.id)
    with database_clock_ahead(db, days) as session:
        handlers.on_rotate(session, received(command))
    assert {one.state for one in secrets_of(db, business) if one.id in (old.id, new.id)} == {
        "retiring"
    }


def test_a_warning_says_how_much_the_old_secret_is_still_used(db, business):
    old, new = retiring(db, business, timedelta(days=2))
    used = use(db, old, 25)
    use(db, new, 75)
    use(db, old, 1000, ago(hours=30))
    tick()
    (warning,) = warnings(db)
    assert (warning.share_of_last_day, warning.is_last) == (0.25, False)
    assert warning.last_used_at == used


def test_a_last_warning_comes_a_day_ahead_while_the_secret_is_in_use(db, business):
    old, _ = retiring(db, business, timedelta(days=2))
    use(db, old, 1)
    tick()
    warned_days_ago(db, old)
    ends(db, old, timedelta(hours=23))
    tick()
    tick()
    assert [warning.is_last for warning in warnings(db)] == [False, True]


def test_no_last_warning_comes_for_a_secret_that_nobody_uses(db, business):
    old, new = retiring(db, business, timedelta(days=2))
    use(db, new, 5)
    used = use(db, old, 5, ago(hours=30))
    tick()
    warned_days_ago(db, old)
    ends(db, old, timedelta(hours=23))
    tick()
    (warning,) = warnings(db)
    assert (warning.share_of_last_day, warning.is_last) == (0.0, False)
    assert warning.last_used_at == used


def test_a_secret_that_ends_within_a_day_is_warned_of_once(db, business):
    old, _ = retiring(db, business, timedelta(hours=12))
    use(db, old, 1)
    tick()
    tick()
    assert [warning.is_last for warning in warnings(db)] == [True]


def test_schedulers_at_once_rotate_each_once(settings, db):
    businesses = [account(db, status="approved") for _ in range(20)]
    for made in businesses:
        issue(made)
        move_expiry(db, made, ahead(days=1))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: tick(), range(4)))
    tick()
    assert all(states(db, made) == ["retiring", "active"] for made in businesses)


def test_an_unapproved_account_is_not_due(db, business):
    db.execute(update(KycApplication).values(status="rejected"))
    db.commit()
    move_expiry(db, business, ago(seconds=1))
    tick()
    assert states(db, business) == ["revoked"]


def test_any_change_by_hand_is_stamped_for_the_caches(db, business):
    (before,) = secrets_of(db, business)
    stamps = before.updated_at, before.change, before.changed_in
    db.execute(text("UPDATE webhook_secrets SET expires_at = expires_at - interval '91 days'"))
    db.commit()
    (after,) = secrets_of(db, business)
    new = after.updated_at, after.change, after.changed_in
    assert all(later > earlier for earlier, later in zip(stamps, new, strict=True))


def test_facts_and_commands_arrive_over_the_bus(settings, db, amqp_url):
    business = account(db, status="approved")
    fact = approved_fact(business)
    with consuming(settings, *wire(settings).subscriptions):
        publish(amqp_url, message_for(fact, source="tests", correlation_id=business.id))
        until(lambda: states(db, business) == ["active"], "issued")
        command = SecretRotate(account_id=business.id, cause="operator")
        publish(amqp_url, message_for(command, source="tests", correlation_id=business.id))
        until(lambda: states(db, business) == ["retiring", "active"], "rotated")


def test_every_secret_fact_names_its_account():
    for type_, struct in EVENT_TYPES.items():
        if type_.startswith("secret."):
            assert "account_id" in struct.__struct_fields__


def as_(account_):
    return {"Authorization": f"Bearer {access_token(account_.id)}"}


def test_http_refuses_without_approval(api):
    with api.session() as session:
        for status in (None, "pending", "rejected", "revoked"):
            me = as_(account(session, status=status))
            for answer in (
                api.http.get("/webhook/secret/", headers=me),
                api.http.post("/webhook/secret/", headers=me),
            ):
                assert answer.status_code == 403
                assert answer.json() == {
                    "error": "KYC approval required",
                    "code": "kyc_approval_required",
                    "message": "You must complete and have your KYC approved to access webhook "
                    "functionality.",
                }


def test_http_tells_the_way_of_a_secret(api):
    with api.session() as session:
        me = as_(account(session, status="approved"))
    assert api.http.get("/webhook/secret/", headers=me).json()["code"] == "secret_not_ready"
    created = api.http.post("/webhook/secret/", headers=me)
    assert (created.status_code, created.json()["status"]) == (201, "created")
    shown = api.http.get("/webhook/secret/", headers=me).json()
    assert shown["secret_key"] == created.json()["secret_key"]
    assert (shown["is_active"], shown["previous"]) == (True, None)
    again = api.http.post("/webhook/secret/", headers=me)
    assert (again.status_code, again.json()["status"]) == (200, "regenerated")
    shown = api.http.get("/webhook/secret/", headers=me).json()
    assert shown["previous"]["valid_until"]
    api.http.post("/webhook/secret/", json={"revoke_previous": True}, headers=me)
    assert api.http.get("/webhook/secret/", headers=me).json()["previous"] is None


@pytest.mark.parametrize("is_other", [False, True], ids=["the same", "another"])
def test_http_takes_the_cure_where_a_secret_cannot_be_opened(api, is_other):
    """As where a sealing key was taken out too early: whoever gives, or makes, one has one."""
    with api.session() as session:
        business = account(session, status="approved")
    me, path = as_(business), "/webhook/secret/shopify/"
    first = {"secret": "a-secret-of-shopify"}
    assert api.http.post("/webhook/secret/", headers=me).status_code == 201
    assert api.http.put(path, json=first, headers=me).status_code == 200
    with api.session() as session:
        damaged = "UPDATE webhook_secrets SET sealed = 'elsewhere' || sealed WHERE account_id = :id"
        session.execute(text(damaged), {"id": business.id})
        session.commit()
    given = first | ({"secret": "another-secret-of-shopify"} if is_other else {})
    answer = api.http.put(path, json=given, headers=me)
    assert answer.status_code == 200, answer.text
    newest, _ = answer.json()["results"]
    with api.session() as session:
        row = session.get_one(WebhookSecret, UUID(newest["id"]))
        assert webhook_keys.unseal(row.sealed, row.id) == given["secret"].encode()
    shown = api.http.get("/webhook/secret/", headers=me)
    assert (shown.status_code, shown.json()["code"]) == (503, "unavailable")
    made = api.http.post("/webhook/secret/", headers=me)
    assert made.json()["status"] == "regenerated"
    shown = api.http.get("/webhook/secret/", headers=me).json()
    assert shown["secret_key"] == made.json()["secret_key"]


def test_http_shows_every_secret_that_still_signs(api):
    with api.session() as session:
        business = account(session, status="approved")
        me = as_(business)
    for _ in range(4):
        api.http.post("/webhook/secret/", headers=me)
    with api.session() as session:
        *older, newest = secrets_of(session, business)
        ended = older[0]
        use(session, older[1], 1)
        session.execute(
            update(WebhookSecret)
            .where(WebhookSecret.id == ended.id)
            .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
        session.commit()
    shown = api.http.get("/webhook/secret/", headers=me).json()
    assert shown["id"] == str(newest.id)
    assert {one["id"] for one in shown["retiring"]} == {str(one.id) for one in older[1:]}
    assert shown["previous"] == shown["retiring"][0]
    ends = [one["valid_until"] for one in shown["retiring"]]
    assert ends == sorted(ends, reverse=True)
    used = {one["id"]: one["share_of_last_day"] for one in shown["retiring"]}
    assert used[str(older[1].id)] == 1.0
    api.http.post("/webhook/secret/", json={"revoke_previous": True}, headers=me)
    assert api.http.get("/webhook/secret/", headers=me).json()["retiring"] == []


def test_http_shows_how_much_each_secret_is_used(api):
    with api.session() as session:
        business = account(session, status="approved")
        me = as_(business)
        api.http.post("/webhook/secret/", headers=me)
        unused = api.http.get("/webhook/secret/", headers=me).json()
        assert (unused["last_used_at"], unused["share_of_last_day"]) == (None, 0.0)
        api.http.post("/webhook/secret/", headers=me)
        old, new = secrets_of(session, business)
        used = use(session, old, 1)
        use(session, new, 3)
    shown = api.http.get("/webhook/secret/", headers=me).json()
    assert (shown["share_of_last_day"], shown["previous"]["share_of_last_day"]) == (0.75, 0.25)
    assert datetime.fromisoformat(shown["previous"]["last_used_at"]) == used


def test_http_replaces_what_has_just_expired(api):
    with api.session() as session:
        business = account(session, status="approved")
        me = as_(business)
        first = api.http.post("/webhook/secret/", headers=me).json()["secret_key"]
        move_expiry(session, business, ago(seconds=1))
        new = api.http.get("/webhook/secret/", headers=me).json()
        assert new["secret_key"] != first
        assert states(session, business) == ["expired", "active"]


def test_lock_keys_are_signed_64_bit(settings, db):
    for made in [account(db) for _ in range(50)]:
        rotation.lock(db, made.id)
    db.rollback()


def test_a_new_encryption_key_seals_again_while_the_old_one_still_opens(
    settings, configure, db, business
):
    (secret,) = secrets_of(db, business)
    before, raw = secret.sealed, webhook_keys.unseal(secret.sealed, secret.id)
    old, new = settings.secret_encryption_keys, base64.b64encode(b"n" * 32).decode()
    configure(secret_encryption_keys=f"{new},{old}")
    assert webhook_keys.unseal(before, secret.id) == raw
    with transaction() as session:
        assert resealing.reseal(session)[0] == 1
        assert resealing.reseal(session)[0] == 0
    configure(secret_encryption_keys=new)
    (secret,) = secrets_of(db, business)
    assert secret.sealed != before
    assert webhook_keys.unseal(secret.sealed, secret.id) == raw
    with pytest.raises(CannotOpenError):
        webhook_keys.unseal(before, secret.id)


def test_what_no_listed_key_opens_is_left_and_named(settings, configure, db, business, capsys):
    (secret,) = secrets_of(db, business)
    before = secret.sealed
    configure(secret_encryption_keys=base64.b64encode(b"n" * 32).decode())
    with transaction() as session:
        assert resealing.reseal(session)[0] == 0
    assert secrets_of(db, business)[0].sealed == before
    assert str(secret.id) in capsys.readouterr().out


def test_what_no_key_opens_stands_before_no_other(settings, configure, db, business, monkeypatch):
    monkeypatch.setattr(resealing, "AT_MOST", 1)
    (lost,) = secrets_of(db, business)
    lost.sealed = b"elsewhere" + lost.sealed
    db.commit()
    other = account(db, status="approved")
    issue(other)
    (before,) = [secret.sealed for secret in secrets_of(db, other)]
    assert lost.id < secrets_of(db, other)[0].id
    new = base64.b64encode(b"n" * 32).decode()
    configure(secret_encryption_keys=f"{new},{settings.secret_encryption_keys}")
    job = resealing.Resealing()
    done = []
    for _ in range(4):
        with transaction() as session:
            done.append(job.run(session))
    assert done == [0, 1, 0, 0]
    assert secrets_of(db, other)[0].sealed != before


def test_a_business_has_so_many_secrets_made_a_day(api):
    with api.session() as session:
        made = account(session, status="approved")
    me = {"Authorization": f"Bearer {access_token(made.id)}"}
    for _ in range(rotation.MAX_A_DAY):
        assert api.http.post("/webhook/secret/", headers=me).status_code in (200, 201)
    refused = api.http.post("/webhook/secret/", headers=me)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_secrets")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert api.http.get("/webhook/secret/", headers=me).status_code == 200
    # A day after the first of them there is room for one.
    with api.session() as session:
        first = session.scalars(
            select(WebhookSecret).where(WebhookSecret.account_id == made.id)
            .order_by(WebhookSecret.issued_at).limit(1)
        ).one()  # fmt: skip
        first.issued_at -= timedelta(days=1)
        session.commit()
    assert api.http.post("/webhook/secret/", headers=me).status_code == 200
    assert api.http.post("/webhook/secret/", headers=me).status_code == 429
