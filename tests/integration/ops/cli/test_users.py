"""`fellow users`, as services.ops signs in; in this process, since each start costs a second."""

import json

import pyotp
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from services.ops.cli import app
from services.ops.users import second_factor, sessions, users
from shared.db.models import OpsUser, OutboxMessage
from shared.db.session import transaction
from tests.integration.arrange import facts


@pytest.fixture
def service():
    return "ops"


def fellow(*arguments):
    done = CliRunner().invoke(app, ["users", *arguments])
    return done.exit_code, done.stdout, done.stderr


def names():
    code, out, err = fellow("list", "--json")
    assert code == 0, err
    return {user["name"]: user["role"] for user in json.loads(out)}


def test_from_making_one_to_removing_it(settings, db):
    code, out, err = fellow("add", "Ada", "--generate")
    assert code == 0, err
    password = out.strip()
    with transaction() as session:
        assert users.verify(session, "ada", password).role == "watch"
    assert fellow("role", "ada", "act")[0] == 0
    assert names() == {"ada": "act"}
    assert "ada" in fellow("list")[1]
    assert fellow("role", "ada", "messages, kyc")[0] == 0
    assert names() == {"ada": "kyc,messages"}
    assert fellow("remove", "ada", "--yes")[0] == 0
    assert names() == {}
    told = facts(db)
    assert [(fact.user, fact.role, fact.by) for fact in told] == [
        ("ada", "watch", "fellow_ops"),
        ("ada", "act", "fellow_ops"),
        ("ada", "kyc,messages", "fellow_ops"),
        ("ada", "", "fellow_ops"),
    ]


def test_the_sessions_of_a_user_are_seen_and_ended(settings, db):
    assert fellow("add", "ada", "--generate")[0] == 0
    where = sessions.Where("203.0.113.7", "Firefox/140")
    with transaction() as session:
        ada = users.find(session, "ada")
        tokens = [sessions.start(session, ada, where) for _ in range(3)]
    shown = json.loads(fellow("sessions", "Ada", "--json")[1])
    assert [one["where"] for one in shown] == [
        {"network": "203.0.113.7", "client": "Firefox/140"}
    ] * 3
    assert "203.0.113.7" in fellow("sessions", "ada")[1]
    assert not any(token in str(shown) for token in tokens)
    assert fellow("sessions", "ada", "--end", shown[0]["id"], "--yes")[0] == 0
    assert len(json.loads(fellow("sessions", "ada", "--json")[1])) == 2
    assert fellow("sessions", "ada", "--end", "all", "--yes")[0] == 0
    assert json.loads(fellow("sessions", "ada", "--json")[1]) == []
    ended = [(fact.user, fact.sessions) for fact in facts(db, "ops.sessions_ended")]
    assert ended == [("ada", 1), ("ada", 2)]


def test_a_second_factor_is_reset_and_that_is_told(settings, db):
    assert fellow("add", "ada", "--generate")[0] == 0
    with transaction() as session:
        (ada,) = session.scalars(select(OpsUser)).all()
        second_factor.offer(session, ada.id, "a session")
        offered = second_factor.offered(session, ada.id, "ada", "a session")
        assert second_factor.confirm(session, ada.id, pyotp.TOTP(offered.secret).now(), "a session")
    (shown,) = json.loads(fellow("list", "--json")[1])
    assert shown["second_factor_since"]
    assert fellow("reset-second-factor", "Ada", "--yes")[0] == 0
    (shown,) = json.loads(fellow("list", "--json")[1])
    assert shown["second_factor_since"] is None
    *_, fact = facts(db)
    assert (fact.user, fact.change, fact.by) == ("ada", "reset", "fellow_ops")


def test_where_a_second_factor_is_required_what_it_takes_to_set_one_up_is_printed_once(
    settings, configure, db
):
    assert len(fellow("add", "ada", "--generate")[1].split()) == 1
    configure(ops_second_factor="required")
    printed = fellow("add", "zoe", "--generate")[1].split()
    assert len(printed) == 2
    assert fellow("role", "zoe", "act")[1] == ""
    with transaction() as session:
        zoe = users.find(session, "zoe")
        assert second_factor.check(session, zoe.id, printed[1]) == "recovery_code"
        assert second_factor.check(session, zoe.id, printed[1]) is None
        second_factor.offer(session, zoe.id, "a session")
        offered = second_factor.offered(session, zoe.id, "zoe", "a session")
        app = pyotp.TOTP(offered.secret)
        assert second_factor.confirm(session, zoe.id, app.now(), "a session")
    assert len(fellow("add", "zoe", "--generate")[1].split()) == 1
    assert len(fellow("reset-second-factor", "zoe", "--yes")[1].split()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("role", "nobody", "act"), "a new one needs a password"),
        (("add", "zoe", "--generate", "--role", "kyc,root"), "some of kyc, messages, customers"),
        (("remove", "nobody", "--yes"), "There is no user nobody."),
        (("sessions", "nobody"), "There is no user nobody."),
        (("reset-second-factor", "nobody", "--yes"), "no user nobody with a second factor"),
        (("add", "a b", "--generate"), "A name has up to 64"),
    ],
)
def test_what_cannot_be_is_a_sentence(settings, db, arguments, sentence):
    code, _, err = fellow(*arguments)
    assert code == 1
    assert sentence in err
    assert db.scalars(select(OutboxMessage)).all() == []
