"""`fellow users`, as a program."""

import json

import pytest
from sqlalchemy import select

from services.ops import users
from shared.bus.events import decode
from shared.db.models import OutboxMessage
from shared.db.session import transaction
from tests.integration.ops.test_cli import fellow


@pytest.fixture
def service():
    return "ops"


def names(settings):
    code, out, err = fellow(settings, "users", "list", "--json")
    assert code == 0, err
    return {user["name"]: user["role"] for user in json.loads(out)}


def test_from_making_one_to_removing_it(settings, db):
    code, out, err = fellow(settings, "users", "add", "Ada", "--generate")
    assert code == 0, err
    password = out.strip()
    with transaction() as session:
        assert users.verify(session, "ada", password).role == "watch"
    assert fellow(settings, "users", "role", "ada", "act")[0] == 0
    assert names(settings) == {"ada": "act"}
    assert fellow(settings, "users", "remove", "ada", "--yes")[0] == 0
    assert names(settings) == {}
    told = [decode(row.type, row.body) for row in db.scalars(select(OutboxMessage))]
    assert [(fact.user, fact.role, fact.by) for fact in told] == [
        ("ada", "watch", "fellow_ops"),
        ("ada", "act", "fellow_ops"),
        ("ada", "", "fellow_ops"),
    ]


def test_what_cannot_be_is_a_sentence(settings):
    for arguments, sentence in (
        (("role", "nobody", "act"), "a new one needs a password"),
        (("remove", "nobody", "--yes"), "There is no user nobody."),
        (("add", "a b", "--generate"), "A name has up to 64"),
    ):
        code, _, err = fellow(settings, "users", *arguments)
        assert code == 1
        assert sentence in err
        assert "Traceback" not in err
