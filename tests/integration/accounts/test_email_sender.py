"""A business names itself in its emails, and says where answers go, once the address is proved."""

import pytest
from sqlalchemy import delete, select, text, update

from shared.bus.contract.events import AccountChanged
from shared.db.models import AttemptCount, EmailSender, PendingProof
from tests.integration.accounts.test_accounts import PASSWORD, bearer, login, new_email
from tests.integration.accounts.test_credentials import email, post, told, wrong
from tests.integration.arrange import facts

__all__ = ["email"]
PATH = "/email-sender/"


@pytest.fixture
def pair(api, email):
    return login(api, email).json()


def put(api, pair, **body):
    return api.http.put(PATH, json=body, headers=bearer(pair["access"]))


def shown(api, pair):
    return api.http.get(PATH, headers=bearer(pair["access"])).json()


def prove(api, pair, otp):
    return api.http.post(f"{PATH}verify/", json={"otp": otp}, headers=bearer(pair["access"]))


def values(api, email):
    with api.session() as session:
        found = facts(session, AccountChanged.TYPE)
    return [fact.value for fact in found if fact.email == email]


def test_without_a_word_it_is_ours(api, pair):
    assert shown(api, pair) == {"display_name": "", "reply_to": None, "awaits_code": None}
    assert api.http.get(PATH).status_code == 401


def test_a_name_holds_at_once_and_its_owner_is_told_once(api, pair, email):
    for _ in range(2):
        answer = put(api, pair, display_name="  Kettle   & Co ")
        assert (answer.status_code, answer.json()["display_name"]) == (200, "Kettle & Co")
    assert told(api, email) == ["display_name_changed"]
    assert values(api, email) == ["Kettle & Co"]
    assert put(api, pair).json()["display_name"] == ""
    assert told(api, email) == ["display_name_changed"] * 2


@pytest.mark.parametrize(
    "name", ["\u202eK", "a@b.example", "Order Fellow", "K\r\nBcc: x", "x" * 61]
)
def test_a_name_that_deceives_is_refused(api, pair, email, name):
    answer = put(api, pair, display_name=name)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_display_name")
    assert told(api, email) == []


@pytest.mark.parametrize("address", ["a@b.example\r\nBcc: c@d.example", "nobody", "a b@c.example"])
def test_what_is_no_address_is_refused(api, pair, address):
    answer = put(api, pair, reply_to=address)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


def test_the_accounts_own_address_needs_no_other_proof(api, pair, email):
    answer = put(api, pair, reply_to=email.upper())
    assert answer.json() == {"display_name": "", "reply_to": email, "awaits_code": None}
    assert told(api, email) == ["reply_to_changed"]


def test_another_address_is_taken_when_it_is_proved(api, pair, email):
    help_ = new_email()
    answer = put(api, pair, display_name="Kettle", reply_to=help_)
    assert answer.json() == {"display_name": "Kettle", "reply_to": None, "awaits_code": help_}
    code = api.code_for(help_)
    assert prove(api, pair, wrong(code)).json()["code"] == "invalid_otp"
    assert shown(api, pair)["reply_to"] is None
    assert prove(api, pair, code).json() == {
        "display_name": "Kettle", "reply_to": help_, "awaits_code": None,
    }  # fmt: skip
    assert told(api, email) == ["display_name_changed", "reply_to_changed"]
    assert prove(api, pair, code).json()["code"] == "invalid_otp"
    # It is known now: no other code for the same.
    assert put(api, pair, display_name="Kettle", reply_to=help_).json()["awaits_code"] is None


def test_a_code_for_one_address_proves_no_other(api, pair):
    first, second = new_email(), new_email()
    put(api, pair, reply_to=first)
    code = api.code_for(first)
    put(api, pair, reply_to=second)
    assert prove(api, pair, code).json()["code"] == "invalid_otp"
    assert prove(api, pair, api.code_for(second)).json()["reply_to"] == second


def test_it_waits_no_more_when_the_address_is_given_up(api, pair):
    other = new_email()
    put(api, pair, reply_to=other)
    code = api.code_for(other)
    assert put(api, pair).json()["awaits_code"] is None
    assert prove(api, pair, code).json()["code"] == "invalid_otp"


def test_a_name_is_changed_beside_an_awaited_code_without_a_second_email(api, pair):
    other = new_email()
    put(api, pair, display_name="Kettels", reply_to=other)
    code = api.code_for(other)
    with api.session() as session, session.begin():
        # As if it had been mailed so long ago that another may be.
        session.execute(update(PendingProof).values(code_made_at=text("now() - '2 min'::interval")))
        session.execute(delete(AttemptCount))
    named = put(api, pair, display_name="Kettles", reply_to=other)
    assert named.json() == {"display_name": "Kettles", "reply_to": None, "awaits_code": other}
    assert prove(api, pair, code).json()["reply_to"] == other


def test_codes_to_strangers_are_bounded(api, pair):
    """Nobody's mailbox is filled by ours."""
    answers = [put(api, pair, reply_to=new_email()).status_code for _ in range(30)]
    assert set(answers) == {200, 429}
    assert answers[-1] == 429


def test_a_closed_account_leaves_no_address(api, pair, email):
    put(api, pair, display_name="Kettle", reply_to=email)
    assert post(api, "close", pair, password=PASSWORD).status_code == 204
    with api.session() as session:
        rows = session.scalars(select(EmailSender)).all()
    assert email not in {row.reply_to for row in rows}
