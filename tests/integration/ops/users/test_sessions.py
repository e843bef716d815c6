"""Users and sessions of the console, in the database as services.ops signs in there."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyotp
import pytest
from sqlalchemy import select, text, update

from services.ops.console.signing_in import sign_in
from services.ops.console.web.page import Visit
from services.ops.users import second_factor, sessions, users
from services.ops.users.sessions import Where
from services.ops.users.users import UnfitUserError
from shared.db.models import OpsSession, OpsUser
from shared.db.session import transaction
from shared.security import passwords
from tests.integration.arrange import until

PASSWORD = "correct horse battery"


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def ada(settings):
    with transaction() as session:
        assert users.put(session, " Ada ", "act", PASSWORD)
        return users.verify(session, "ADA", PASSWORD)


def move(db, **back: timedelta) -> None:
    """Let time pass for every session."""
    now = datetime.now(UTC)
    db.execute(update(OpsSession).values({name: now - by for name, by in back.items()}))
    db.commit()


def found(token, settings):
    with transaction() as session:
        return sessions.find(session, token, settings)


def test_a_session_is_found_by_its_token_and_by_nothing_else(settings, db, ada):
    with transaction() as session:
        token = sessions.start(session, ada)
    assert found(token, settings) == ada
    assert found(token + "x", settings) is None
    (row,) = db.scalars(select(OpsSession)).all()
    assert token.encode() not in bytes(row.token_hash)
    assert found(bytes(row.token_hash).hex(), settings) is None


def test_a_note_stays_beside_the_next_until_it_is_read(settings, ada):
    """That somebody else has signed in is not lost by what became of one's own action."""
    with transaction() as session:
        token = sessions.start(session, ada)
        sessions.leave_note(session, token, "It is discarded.")
        sessions.note_for_all(session, ada.id, "You have signed in from 203.0.113.7 too.")
        sessions.leave_note(session, token, "It is tried now.")
    with transaction() as session:
        assert sessions.take_note(session, token) == (
            "It is discarded. You have signed in from 203.0.113.7 too. It is tried now."
        )
        assert sessions.take_note(session, token) == ""
        for letter in "abc":
            sessions.leave_note(session, token, letter * 999)
        newest = f"a {'b' * 999} {'c' * 999}"
        assert sessions.take_note(session, token) == newest[-sessions.NOTE_CHARACTERS :]


def test_it_ends_when_nobody_asks_for_long(settings, db, ada):
    with transaction() as session:
        token = sessions.start(session, ada)
    move(db, seen_at=timedelta(seconds=settings.ops_idle_seconds - 60))
    assert found(token, settings) == ada
    # Which counts as being asked for.
    db.rollback()
    (row,) = db.scalars(select(OpsSession)).all()
    assert datetime.now(UTC) - row.seen_at < timedelta(minutes=1)
    move(db, seen_at=timedelta(seconds=settings.ops_idle_seconds + 1))
    assert found(token, settings) is None


def test_it_ends_after_its_time_in_any_case(settings, db, ada):
    with transaction() as session:
        token = sessions.start(session, ada)
    move(db, created_at=timedelta(seconds=settings.ops_session_seconds + 1))
    assert found(token, settings) is None
    with transaction() as session:
        sessions.start(session, ada)
    sessions.delete_ended(settings)
    assert len(db.scalars(select(OpsSession)).all()) == 1


def test_a_page_by_itself_is_no_use(settings, db, ada):
    with transaction() as session:
        token = sessions.start(session, ada)
    almost = timedelta(seconds=settings.ops_idle_seconds - 60)
    move(db, seen_at=almost)
    with transaction() as session:
        assert sessions.find(session, token, settings, is_use=False) == ada
    db.rollback()
    (row,) = db.scalars(select(OpsSession)).all()
    assert datetime.now(UTC) - row.seen_at >= almost
    move(db, seen_at=timedelta(seconds=settings.ops_idle_seconds + 1))
    with transaction() as session:
        assert sessions.find(session, token, settings, is_use=False) is None


def test_one_ends_ones_own_and_no_others(settings, ada):
    with transaction() as session:
        users.put(session, "wole", "watch", PASSWORD)
        wole = users.find(session, "Wole")
        where = Where("203.0.113.7", "Mozilla/5.0 " + "x" * 1000)
        tokens = [sessions.start(session, ada, where) for _ in range(3)]
        others = sessions.start(session, wole)
        sessions.start(session, ada, awaits_code=True)
    with transaction() as session:
        listed = sessions.listed(session, ada.id, settings, tokens[1])
        assert len(listed) == 3
        (own,) = [one for one in listed if one.is_own]
        assert own.where.network == "203.0.113.7"
        assert len(own.where.client) == sessions.CLIENT_CHARACTERS
        assert sessions.end_one(session, wole.id, own.id) == 0
        assert sessions.end_one(session, ada.id, own.id) == 1
    assert found(tokens[1], settings) is None
    with transaction() as session:
        assert sessions.end_others(session, ada.id, tokens[0]) == 2
    assert found(tokens[0], settings) == ada
    assert found(tokens[2], settings) is None
    assert found(others, settings) == wole


@pytest.mark.parametrize(
    "change",
    [
        lambda session: users.put(session, "ada", "watch", None),
        lambda session: users.put(session, "ada", "act", "another long password"),
        lambda session: users.remove(session, "ada"),
    ],
    ids=["role", "password", "removed"],
)
def test_it_ends_with_a_change_of_its_user(settings, ada, change):
    with transaction() as session:
        token = sessions.start(session, ada)
    with transaction() as session:
        change(session)
    assert found(token, settings) is None


@pytest.mark.parametrize("change", ["password", "removed", "second factor"])
def test_nobody_slips_in_while_a_password_is_compared(settings, db, ada, monkeypatch, change):
    """To compare takes long: what ended every session by then has ended this one."""
    matches = passwords.matches
    changing = threading.Thread(target=_change, args=(change, ada))

    def compared(password, stored):
        found = matches(password, stored)
        monkeypatch.setattr(passwords, "matches", matches)
        changing.start()
        changing.join()
        return found

    monkeypatch.setattr(passwords, "matches", compared)
    with transaction() as session:
        user = users.verify(session, "ada", PASSWORD)
    assert user is None or (change == "second factor" and user.has_second_factor)


def _change(change, ada):
    with transaction() as session:
        if change == "password":
            users.put(session, "ada", "act", "another long password")
        elif change == "removed":
            users.remove(session, "ada")
        else:
            second_factor.offer(session, ada.id, "a session")
            secret = second_factor.offered(session, ada.id, "ada", "a session").secret
            assert second_factor.confirm(session, ada.id, pyotp.TOTP(secret).now(), "a session")


def test_a_second_factor_waits_for_who_signs_in_without_it(settings, db, engine, ada):
    """Else that one would be signed in behind the end of all others."""
    changing = threading.Thread(target=_change, args=("second factor", ada))
    with transaction() as session:
        user = users.verify(session, "ada", PASSWORD)
        changing.start()
        until(lambda: _waiting(engine), "the second factor waits")
        token = sessions.start(session, user)
    changing.join()
    with transaction() as session:
        assert sessions.end_others(session, ada.id) == 1
    assert found(token, settings) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda session: users.put(session, "ada", "act", "another long password"),
        lambda session: second_factor.reset(session, "ada"),
    ],
    ids=["password", "second factor"],
)
def test_nobody_slips_in_by_a_code_while_all_sessions_end(settings, db, engine, ada, change):
    with transaction() as session:
        (code, *_) = second_factor.make_recovery_codes(session, ada.id)
        token = sessions.start(session, ada, awaits_code=True)
    visit = Visit(
        page=None, system=SimpleNamespace(config=settings), visitor=None, token=token,
        path={}, query={}, form={"code": [code]}, asked_for="/", address="203.0.113.7",
        client="", mark="",
    )  # fmt: skip

    def changed():
        with transaction() as session:
            change(session)

    changing = threading.Thread(target=changed)
    with transaction() as session:
        assert sign_in.take_code(session, visit).token
        changing.start()
        until(lambda: _waiting(engine), "the change waits")
    changing.join()
    assert db.scalars(select(OpsSession)).all() == []


def _waiting(engine):
    waits = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with engine.connect() as connection:
        return connection.scalar(waits)


def test_a_note_is_said_once_and_to_its_own_session(settings, ada):
    with transaction() as session:
        mine, other = (sessions.start(session, ada) for _ in range(2))
        sessions.leave_note(session, mine, "Done.")
    with transaction() as session:
        assert sessions.take_note(session, other) == ""
        assert sessions.take_note(session, mine) == "Done."
        assert sessions.take_note(session, mine) == ""


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("", PASSWORD),
        ("a b", PASSWORD),
        ("x" * 65, PASSWORD),
        ("zoe", "short"),
        ("zoe", None),
        # NIST SP 800-63B, 5.1.1.2: what is tried first, what repeats, what is known.
        ("zoe", "QwertyUiop10"),
        ("zoe", "aaaaaaaaaaaaaaa"),
        ("zoe-of-kettle", "Zoe of Kettle"),
    ],
)
def test_such_a_user_cannot_be(settings, name, password):
    with pytest.raises(UnfitUserError), transaction() as session:
        users.put(session, name, "watch", password)


def test_a_password_is_kept_as_a_hash(settings, db, ada):
    row = db.scalars(select(OpsUser)).one()
    assert row.password_hash.startswith("$argon2id$")
    with transaction() as session:
        assert users.verify(session, "ada", PASSWORD + " ") is None
        assert users.verify(session, "nobody", PASSWORD) is None
