"""A test secret lives as a live one, beside it: neither's life touches the other's."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from standardwebhooks.webhooks import Webhook

from services.ingress.credentials import rows
from services.ingress.credentials.secret import MAX_TRIED, tried
from services.secrets import handlers, rotation, schedule
from shared.bus.contract.events import SecretRevoked, SecretRotate, decode
from shared.db.models import OutboxMessage, WebhookSecret
from shared.db.session import database_time, transaction
from shared.ids import new_id
from shared.security import webhook_keys
from tests.integration.arrange import account, received


@pytest.fixture
def business(settings, db):
    made = account(db, status="approved")
    with transaction() as session:
        rotation.issue(session, made)
        rotation.issue(session, made, is_test=True)
    return made


def secrets(db, business):
    """The states of the live ones and of the tests, the oldest first."""
    db.rollback()
    rows = db.execute(
        select(WebhookSecret.is_test, WebhookSecret.state)
        .where(WebhookSecret.account_id == business.id)
        .order_by(WebhookSecret.issued_at)
    ).all()
    return [s for t, s in rows if not t], [s for t, s in rows if t]


def of(db, business, *, is_test):
    return rotation.active(db, business.id, is_test=is_test)


def test_what_it_is_shows_in_both_forms_and_the_library_takes_it():
    raw = webhook_keys.generate(is_test=True)
    assert webhook_keys.encode_key(raw).startswith("whtk_TEST")
    shown = webhook_keys.encode_standard(raw)
    assert shown.startswith("whsec_TEST")
    assert Webhook(shown).sign("msg_1", datetime.now(UTC), "{}").startswith("v1,")
    assert webhook_keys.is_test(raw)
    # A live one that begins alike by chance is none.
    assert not webhook_keys.is_test(webhook_keys.TEST_MARK + bytes(29))
    for form in (webhook_keys.encode_key(raw), shown):
        assert form[6:] not in webhook_keys.redacted(f"it is {form}.")


def test_each_is_replaced_by_itself(settings, db, business):
    with transaction() as session:
        rotation.rotate(session, business, "business", is_test=True)
    assert secrets(db, business) == (["active"], ["retiring", "active"])
    with transaction() as session:
        rotation.rotate(session, business, "business", revoke_previous=True)
    assert secrets(db, business) == (["revoked", "active"], ["retiring", "active"])
    with transaction() as session:
        rotation.rotate(session, business, "business", revoke_previous=True, is_test=True)
    assert secrets(db, business)[1] == ["revoked", "revoked", "active"]


def test_the_schedule_and_an_expired_use_replace_it(settings, db, business):
    test = of(db, business, is_test=True)
    db.execute(
        text(
            "UPDATE webhook_secrets SET expires_at = now() + interval '1 day', "
            "issued_at = now() - interval '89 days' WHERE is_test"
        )
    )
    db.commit()
    with transaction() as session:
        schedule.rotate_due(session, database_time(session))
    assert secrets(db, business) == (["active"], ["retiring", "active"])
    newest = of(db, business, is_test=True)
    assert newest.id != test.id
    command = SecretRotate(account_id=business.id, cause="expired_use", secret_id=newest.id)
    with transaction() as session:
        handlers.on_rotate(session, received(command))
    assert secrets(db, business) == (["active"], ["retiring", "retiring", "active"])


def test_an_operators_rotation_and_an_approval_are_about_the_live_one(settings, db, business):
    with transaction() as session:
        handlers.on_rotate(
            session, received(SecretRotate(account_id=business.id, cause="operator"))
        )
    assert secrets(db, business) == (["retiring", "active"], ["active"])


def test_the_end_of_test_mode_leaves_the_live_one(settings, db, business):
    with transaction() as session:
        rotation.rotate(session, business, "business", is_test=True)
        rotation.end_test_mode(session, business)
        rotation.end_test_mode(session, business)  # told once
    assert secrets(db, business) == (["active"], ["revoked", "revoked"])
    rows = db.scalars(select(OutboxMessage).where(OutboxMessage.type == SecretRevoked.TYPE)).all()
    (fact,) = (decode(row.type, row.body) for row in rows)
    assert len(fact.secret_ids) == 2
    assert (fact.kinds, fact.cause) == (("test",), "ended_test_mode")


def test_both_end_with_the_approval(settings, db, business, engine):
    with engine.begin() as hand:
        hand.execute(text("UPDATE kyc_applications SET status = 'revoked'"))
    assert secrets(db, business) == (["revoked"], ["revoked"])
    with pytest.raises(IntegrityError, match="is not approved"), transaction() as session:
        rotation.issue(session, business, is_test=True)


def test_there_is_one_active_of_each(settings, db, business):
    for is_test in (False, True):
        with (
            pytest.raises(IntegrityError, match="uq_webhook_secrets_active"),
            transaction() as session,
        ):
            rotation.issue(session, business, is_test=is_test)


def test_the_days_bound_is_each_modes_own(settings, db, business):
    with transaction() as session:
        for _ in range(rotation.MAX_A_DAY):
            rotation.rotate(session, business, "business", is_test=True)
        assert rotation.wait_for_next(session, business.id, is_test=True)
        assert not rotation.wait_for_next(session, business.id)


def test_tests_that_are_made_one_after_the_other_leave_the_live_one_its_place(settings, business):
    with transaction() as session:
        live = rotation.active(session, business.id).id
        for _ in range(2 * MAX_TRIED):
            rotation.rotate(session, business, "business", is_test=True)
    found = rows.newest_of(business.id).secrets
    assert live in {row.id for row in found}
    newest_first = sorted(found, key=lambda row: row.id, reverse=True)
    assert len(newest_first) == MAX_TRIED + 1
    assert live in {row.id for row in tried(newest_first)}


def test_one_that_has_expired_is_no_longer_the_active_one_when_shown(settings, db, business):
    db.execute(
        text("UPDATE webhook_secrets SET expires_at = :at WHERE is_test"),
        {"at": datetime.now(UTC) - timedelta(seconds=1)},
    )
    db.commit()
    newest = rotation.newest(db, business.id, is_test=True)
    assert rotation.has_ended(newest, database_time(db))
    assert not rotation.has_ended(rotation.newest(db, business.id), database_time(db))


@pytest.mark.parametrize("is_test", [False, True])
def test_those_that_end_with_no_active_one_are_told(settings, db, business, is_test):
    """The active one was revoked by name; the one before goes on working until it is over."""
    with transaction() as session:
        rotation.rotate(session, business, "business", is_test=is_test)
        active = rotation.active(session, business.id, is_test=is_test)
        rotation.revoke(session, business, "By name.", secret_id=active.id, message_id=new_id())
    (retiring,) = db.scalars(
        select(WebhookSecret.id).where(
            WebhookSecret.state == "retiring", WebhookSecret.is_test == is_test
        )
    )
    with transaction() as session:
        issued = rotation.rotate(
            session, business, "business", revoke_previous=True, is_test=is_test
        )
    assert sorted(secrets(db, business)[is_test]) == ["active", "revoked", "revoked"]
    row = db.scalars(select(OutboxMessage).order_by(OutboxMessage.sequence.desc()).limit(1)).one()
    fact = decode(row.type, row.body)
    assert (fact.secret_id, fact.revoked_ids) == (issued.id, (retiring,))
