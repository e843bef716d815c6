"""An owner's changes: what is lost is got back, what is changed is told, what is ended is over."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, text, update

from shared.bus.contract.events import AccountChanged, AccountSignedIn, SecretRevoked, decode
from shared.db.models import (
    Account,
    KnownNetwork,
    KycApplication,
    OutboxMessage,
    PendingProof,
    WebhookPolicy,
    WebhookSecret,
)
from shared.ids import new_id
from tests.integration.accounts.test_accounts import (
    PASSWORD,
    bearer,
    login,
    new_email,
    register,
    verify,
    wrong,
)
from tests.integration.arrange import facts

NEW = "a staple of another kind"


@pytest.fixture
def email(api):
    address = new_email()
    assert register(api, address).status_code == 201
    assert verify(api, address, api.code_for(address)).status_code == 200
    return address


def post(api, path, pair=None, **body):
    headers = bearer(pair["access"]) if pair else {}
    return api.http.post(f"/users/{path}/", json=body, headers=headers)


def told(api, email):
    """What was told of an account to an address."""
    with api.session() as session:
        found = facts(session, AccountChanged.TYPE)
    return [fact.what for fact in found if fact.email == email]


def get(api, pair):
    return api.http.get("/users/sessions/", headers=bearer(pair["access"]))


def is_in(api, pair):
    return get(api, pair).status_code == 200


def test_a_lost_password_is_set_by_a_mailed_code_and_every_session_ends(api, email):
    pair = login(api, email).json()
    assert post(api, "password/reset-code", email=email.upper()).status_code == 200
    code = api.code_for(email)
    answer = post(api, "password/reset", email=email, otp=wrong(code), password=NEW)
    assert answer.json()["code"] == "invalid_otp"
    weak = post(api, "password/reset", email=email, otp=code, password="Kettle & Co")
    assert (weak.status_code, len(weak.json()["faults"])) == (400, 1)
    assert is_in(api, pair)
    assert post(api, "password/reset", email=email, otp=code, password=NEW).status_code == 200
    assert not is_in(api, pair)
    assert post(api, "auth/refresh", refresh=pair["refresh"]).status_code == 401
    assert (login(api, email).status_code, login(api, email, NEW).status_code) == (401, 200)
    again = post(api, "password/reset", email=email, otp=code, password=PASSWORD)
    assert again.json()["code"] == "invalid_otp"
    assert told(api, email) == ["password_reset"]


def test_a_reset_tells_nobody_who_has_an_account(api, email):
    nobody = new_email()
    answers = [post(api, "password/reset-code", email=address) for address in (email, nobody)]
    assert answers[0].json() == answers[1].json()
    code = wrong(api.code_for(email))
    for _ in range(7):
        tries = [
            post(api, "password/reset", email=address, otp=code, password=NEW)
            for address in (email, nobody)
        ]
        assert tries[0].json() == tries[1].json()
    with pytest.raises(AssertionError, match="no code"):
        api.code_for(nobody)


def test_a_code_is_good_for_what_it_was_mailed_for_and_nothing_else(api, email):
    post(api, "password/reset-code", email=email)
    code = api.code_for(email)
    assert verify(api, email, code).json()["code"] == "invalid_otp"
    pair = login(api, email).json()
    assert post(api, "email/verify", pair, otp=code).json()["code"] == "invalid_otp"
    free = new_email()
    register(api, free)
    answer = post(api, "password/reset", email=free, otp=api.code_for(free), password=NEW)
    assert answer.json()["code"] == "invalid_otp"


def test_a_password_is_confirmed_and_nothing_changes(api, email):
    pair = login(api, email).json()
    refused = post(api, "password/confirm", pair, password="not this one")
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert post(api, "password/confirm", password=PASSWORD).status_code == 401
    assert post(api, "password/confirm", pair, password=PASSWORD).status_code == 204
    assert is_in(api, pair)
    assert told(api, email) == []


def test_a_password_is_changed_by_the_one_before(api, email):
    pair, other = login(api, email).json(), login(api, email).json()
    refused = post(api, "password", pair, current_password="not this one", password=NEW)
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    body = {"current_password": PASSWORD, "password": NEW}
    assert post(api, "password", pair, **body).status_code == 200
    assert not is_in(api, pair)
    assert not is_in(api, other)
    assert login(api, email, NEW).status_code == 200
    assert told(api, email) == ["password_changed"]


def test_an_address_is_changed_by_a_code_to_the_new_one_and_both_are_told(api, email):
    pair, new = login(api, email).json(), new_email()
    thief = login(api, email).json()
    assert post(api, "email", pair, email=new, password="not this").status_code == 403
    assert post(api, "email", pair, email=new, password=PASSWORD).status_code == 200
    code = api.code_for(new)
    assert login(api, new).status_code == 401
    assert post(api, "email/verify", pair, otp=wrong(code)).status_code == 400
    assert is_in(api, thief)
    assert post(api, "email/verify", pair, otp=code).status_code == 200
    # Whoever was signed in elsewhere is not any more, refresh tokens and all; who changed it is.
    assert not is_in(api, thief)
    assert post(api, "auth/refresh", refresh=thief["refresh"]).status_code == 401
    assert is_in(api, pair)
    assert post(api, "auth/refresh", refresh=pair["refresh"]).status_code == 200
    assert login(api, new).status_code == 200
    assert login(api, email).status_code == 401
    assert told(api, email) == told(api, new) == ["address_changed"]


def test_an_address_that_somebody_has_cannot_be_had_and_nothing_tells_so(api, email):
    other = new_email()
    register(api, other)
    verify(api, other, api.code_for(other))
    pair = login(api, email).json()
    answers = [
        post(api, "email", pair, email=address, password=PASSWORD)
        for address in (other, new_email())
    ]
    assert answers[0].json() == answers[1].json()
    # Whoever proves it first has it.
    wanted = new_email()
    post(api, "email", pair, email=wanted, password=PASSWORD)
    code = api.code_for(wanted)
    register(api, wanted)
    assert verify(api, wanted, api.code_for(wanted)).status_code == 200
    assert post(api, "email/verify", pair, otp=code).status_code == 400
    assert login(api, email).status_code == 200


def test_a_closed_account_is_over_and_its_address_is_free(api, email):
    pair = login(api, email).json()
    with api.session() as session:
        account = session.query(Account).filter_by(email=email).one()
        session.add(
            KycApplication(
                account_id=account.id,
                business_registration_number=f"RC-{new_id()}",
                business_address="1 Broad St",
                contact_person_details='"Ada"',
                status="approved",
            )
        )
        session.commit()
    assert post(api, "close", pair, password="not this one").status_code == 403
    assert api.http.post("/webhook/secret/", headers=bearer(pair["access"])).status_code == 201
    allowed = {"allowed_networks": ["192.0.2.0/24"]}
    policy = api.http.put("/webhook/allowlist/", json=allowed, headers=bearer(pair["access"]))
    assert policy.status_code == 200, policy.text
    assert post(api, "close", pair, password=PASSWORD).status_code == 204
    with api.session() as session:
        assert session.get_one(WebhookPolicy, account.id).allowed_networks == []
    assert not is_in(api, pair)
    assert post(api, "auth/refresh", refresh=pair["refresh"]).status_code == 401
    assert login(api, email).status_code == 401
    with api.session() as session:
        assert session.query(KycApplication).filter_by(account_id=account.id).one().status == (
            "revoked"
        )
        # Every ingress worker hears of it, and need not find it at its next poll.
        secret = session.query(WebhookSecret).filter_by(account_id=account.id).one()
        (row,) = [
            row
            for row in session.query(OutboxMessage).filter_by(type=SecretRevoked.TYPE)
            if row.correlation_id == str(account.id)
        ]
        fact = decode(row.type, row.body)
        assert (secret.state, fact.secret_ids, fact.email) == ("revoked", (secret.id,), email)
    assert told(api, email) == ["closed"]
    assert register(api, email).status_code == 201
    assert verify(api, email, api.code_for(email)).status_code == 200
    assert login(api, email).json()["id"] != str(account.id)


def test_a_blocked_account_is_let_in_nowhere_until_it_is_unblocked(api, email):
    pair = login(api, email).json()
    with api.session() as session:
        account = session.query(Account).filter_by(email=email).one()
        session.add(WebhookPolicy(account_id=account.id, blocked_at=datetime.now(UTC)))
        session.commit()

        def codes():
            return [
                login(api, email).json().get("code"),
                post(api, "auth/refresh", refresh=pair["refresh"]).json().get("code"),
                api.http.get("/kyc/", headers=bearer(pair["access"])).json().get("code"),
            ]

        assert codes() == ["account_blocked"] * 3
        assert login(api, email, "a wrong one").json()["code"] == "invalid_credentials"
        session.execute(update(WebhookPolicy).values(blocked_at=None))
        session.commit()
        assert codes() == [None, None, "kyc_not_found"]


def test_a_used_refresh_token_is_told(api, email):
    pair = login(api, email).json()
    for _ in range(2):
        post(api, "auth/refresh", refresh=pair["refresh"])
    assert told(api, email) == ["refresh_token_reused"]


def test_only_a_sign_in_from_somewhere_new_is_marked(api, email):
    def sign_ins():
        with api.session() as session:
            found = facts(session, AccountSignedIn.TYPE)
        return [fact.is_new_place for fact in found if fact.email == email]

    login(api, email)
    assert sign_ins() == [False]
    with api.session() as session:
        account = session.query(Account).filter_by(email=email).one()
        session.execute(
            text("UPDATE known_networks SET network = '192.0.2.1' WHERE account_id = :id"),
            {"id": account.id},
        )
        session.commit()
    login(api, email)
    login(api, email)
    assert sign_ins() == [False, True, False]
    # A year after the last sign-in nothing is known any more, and a thief may be the first.
    with api.session() as session:
        session.execute(delete(KnownNetwork).where(KnownNetwork.account_id == account.id))
        session.commit()
    login(api, email)
    login(api, email)
    # Known networks are recorded twice a minute, new ones always.
    assert sign_ins() == [False, True, False, True]


def test_an_old_reset_code_is_told_to_be_old_only_to_who_has_it(api, email):
    post(api, "password/reset-code", email=email)
    code = api.code_for(email)
    with api.session() as session:
        session.execute(
            update(PendingProof).values(code_expires_at=datetime.now(UTC) - timedelta(minutes=1))
        )
        session.commit()
    answers = [
        post(api, "password/reset", email=email, otp=otp, password=NEW).json()["code"]
        for otp in (wrong(code), code)
    ]
    assert answers == ["invalid_otp", "otp_expired"]


def test_a_closed_account_is_nobodys_by_whatever_address(api, email):
    """Its row stays, with an address that nobody has; no name and no code opens it again."""
    signed_in = login(api, email).json()
    assert post(api, "close", signed_in, password=PASSWORD).status_code == 204
    left = f"{signed_in['id']}@closed.invalid"
    assert login(api, left).json()["code"] == "invalid_credentials"
    assert post(api, "password/reset-code", email=left).status_code == 200
    with pytest.raises(AssertionError, match="no code"):
        api.code_for(left)


def test_a_code_proves_the_address_that_it_was_mailed_to_and_no_later_one(api, email):
    """Whoever reads the mailbox that an owner leaves must not follow to the next one."""
    pair, new = login(api, email).json(), new_email()
    post(api, "password/reset-code", email=email)
    stolen = api.code_for(email)
    post(api, "email", pair, email=new, password=PASSWORD)
    assert post(api, "email/verify", pair, otp=api.code_for(new)).status_code == 200
    for address in (new, email):
        answer = post(api, "password/reset", email=address, otp=stolen, password=NEW)
        assert answer.json()["code"] == "invalid_otp"
    assert login(api, new).status_code == 200


def test_no_address_is_taken_but_the_one_that_is_meant(api, email):
    """Two pages asked for two, and only the later one's code is good."""
    pair, first, second = login(api, email).json(), new_email(), new_email()
    for address in (first, second):
        assert post(api, "email", pair, email=address, password=PASSWORD).status_code == 200
    code = api.code_for(second)
    answer = post(api, "email/verify", pair, otp=code, email=first)
    assert answer.json()["code"] == "invalid_otp"
    assert login(api, email).status_code == 200
    answer = post(api, "email/verify", pair, otp=code, email=second.upper())
    assert answer.status_code == 200
    assert login(api, second).status_code == 200


def test_what_a_password_began_ends_with_it(api, email):
    """A thief who has begun to move an account away has nothing left when its password is set."""
    pair, theirs = login(api, email).json(), new_email()
    post(api, "email", pair, email=theirs, password=PASSWORD)
    code = api.code_for(theirs)
    post(api, "password", pair, current_password=PASSWORD, password=NEW)
    again = login(api, email, NEW).json()
    assert post(api, "email/verify", again, otp=code).json()["code"] == "invalid_otp"


def test_an_account_has_a_few_strangers_mailed_a_day_and_not_everybody(api, email):
    pair = login(api, email).json()
    answers = [post(api, "email", pair, email=new_email(), password=PASSWORD) for _ in range(12)]
    assert {answer.status_code for answer in answers[:5]} == {200}
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0


def change(api, pair, _, __):
    assert post(api, "password", pair, current_password=PASSWORD, password=NEW).is_success


def reset(api, _, email, otp):
    assert post(api, "password/reset", email=email, otp=otp, password=NEW).is_success


def close(api, pair, _, __):
    assert post(api, "close", pair, password=PASSWORD).status_code == 204


def block(api, pair, _, __):
    with api.session() as session:
        session.add(WebhookPolicy(account_id=pair["id"], blocked_at=datetime.now(UTC)))
        session.commit()


@pytest.mark.parametrize("end", [change, reset, close, block])
def test_whatever_was_given_before_is_good_for_nothing_after(api, email, end):
    """Each kind, in every worker: with whoever still has it, and with its owner."""
    old, other = login(api, email).json(), login(api, email).json()
    address, answers_to = new_email(), new_email()
    post(api, "email", old, email=address, password=PASSWORD)
    api.http.put("/email-sender/", json={"reply_to": answers_to}, headers=bearer(old["access"]))
    post(api, "password/reset-code", email=email)
    code = api.code_for(email)
    offers = {
        "email/verify": api.code_for(address),
        "/email-sender/verify": api.code_for(answers_to),
    }
    end(api, old, email, code)
    owner = login(api, email, NEW)

    def offered(path, pair):
        path = path if path.startswith("/") else f"/users/{path}"
        headers, body = (
            bearer(pair.get("access", "none")),
            {"otp": offers[path.removeprefix("/users/")]},
        )
        return api.http.post(f"{path}/", json=body, headers=headers)

    def sign_in():
        body = {"email": email, "password": PASSWORD, "device_token": old["device_token"]}
        return api.http.post("/users/auth/login/", json=body)

    tried = {
        "access token": [get(api, old) for _ in range(4)],
        "access token of another session": [get(api, other) for _ in range(4)],
        "refresh token": [post(api, "auth/refresh", refresh=other["refresh"])],
        "password and mark of a device": [sign_in()],
        "offer of an address": [offered("email/verify", pair) for pair in (old, owner.json())],
        "offer for answers": [
            offered("/email-sender/verify", pair) for pair in (old, owner.json())
        ],
    }
    if end is not block:  # its owner may set another password, and is let in nowhere by it
        again = {"email": email, "otp": code, "password": "a third of some length"}
        tried["reset code"] = [post(api, "password/reset", **again)]
    assert (owner.status_code == 200) is (end in (change, reset))
    found = {kind: {answer.is_success for answer in answers} for kind, answers in tried.items()}
    assert found == {kind: {False} for kind in tried}
