"""Limits hit who guesses, by account and by network, and spare who owns the account."""

import itertools
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, update

from services.accounts import guesses
from services.accounts.codes import RESEND_AFTER
from shared.bus.contract.events import AccountOtpRequested
from shared.db.attempts import REMEMBERED_SECONDS
from shared.db.models import Account, AttemptCount, KnownNetwork, OutboxMessage, PendingProof
from shared.db.session import database_time
from shared.security.networks import network_of
from tests.integration.arrange import facts
from tests.integration.conftest import running_ingress

PASSWORD = "correct horse battery"
networks = itertools.count(1)


@pytest.fixture(scope="module")
def api(module_amqp_url, module_database_url, tmp_path_factory):
    """Two workers behind a trusted proxy, with the limits that they have by default."""
    with running_ingress(
        tmp_path_factory.mktemp("ingress"),
        module_amqp_url,
        module_database_url,
        TRUSTED_PROXIES="1",
        SIGN_IN_ATTEMPTS_PER_MINUTE="",
        ACCOUNT_ATTEMPTS_PER_MINUTE="",
    ) as found:
        yield found


def somewhere():
    """An address of a network that nobody has used yet."""
    number = next(networks)
    return f"198.18.{number // 250}.{number % 250 + 1}"


def post(api, path, address, **body):
    return api.http.post(f"/users/{path}/", json=body, headers={"X-Forwarded-For": address})


def new_email():
    return f"it-{uuid.uuid4().hex[:10]}@kettle.example"


def register(api, email, address):
    body = {"company_name": "Kettle & Co", "email": email, "password": PASSWORD}
    return post(api, "auth/register", address, **body)


def login(api, email, address, password=PASSWORD):
    return post(api, "auth/login", address, email=email, password=password)


@pytest.fixture
def home():
    """Where the owner is."""
    return somewhere()


@pytest.fixture
def email(api, home):
    """The address of an account that is used from `home`."""
    made, address = new_email(), somewhere()
    assert register(api, made, address).status_code == 201
    answer = post(api, "verify-otp", address, email=made, otp=api.code_for(made))
    assert answer.status_code == 200
    assert login(api, made, home).status_code == 200
    return made


def statuses(answers):
    return [answer.status_code for answer in answers]


def test_a_flood_of_passwords_is_hardly_looked_at_and_the_owner_signs_in(api, email, home):
    """From many networks at once, in both workers, for several minutes by the counts."""
    looked_at = 0
    with ThreadPoolExecutor(4) as threads:
        for _ in range(6):
            places = [somewhere() for _ in range(40)]
            answers = threads.map(lambda at: login(api, email, at, "wrong guess"), places)
            owner = threads.submit(login, api, email, home)
            looked_at += statuses(answers).count(401)
            assert owner.result().status_code == 200
            # What holds for a minute is over; what holds for an hour is not.
            with api.session() as session:
                soon = datetime.now(UTC) + timedelta(minutes=2)
                session.execute(delete(AttemptCount).where(AttemptCount.ends_at < soon))
                session.commit()
    assert 10 <= looked_at < 100
    assert login(api, email, home).status_code == 200


def test_who_guesses_where_the_owner_is_holds_up_no_other_place(api, email, home):
    away = somewhere()
    assert login(api, email, away).status_code == 200
    answers = statuses(login(api, email, home, "wrong guess") for _ in range(30))
    assert answers.count(401) < 30
    assert answers[-1] == 429
    assert login(api, email, away).status_code == 200


def test_guessing_at_others_from_a_shared_network_leaves_its_own_accounts_alone(api, email, home):
    """As behind one NAT: a colleague's floods of every kind keep nobody from their own account."""
    refresh = login(api, email, home).json()["refresh"]
    guessed = statuses(login(api, new_email(), home, "wrong guess") for _ in range(35))
    assert 429 in guessed
    asked = statuses(post(api, "request-otp", home, email=new_email()) for _ in range(80))
    assert 429 in asked
    assert login(api, email, home).status_code == 200
    assert post(api, "auth/refresh", home, refresh=refresh).status_code == 200


@pytest.mark.parametrize("form", ["2001:db8:{n:x}::{i:x}", "[2001:db8:{n:x}::{i:x}]:443"])
def test_a_64_is_one_network_and_so_is_every_port(api, form):
    n = next(networks)
    # Codes, which cost no work: all within the minute, however slow the machine is.
    answers = statuses(
        post(api, "verify-otp", form.format(n=n, i=i), email=new_email(), otp="000000")
        for i in range(1, 35)
    )
    assert answers == [400] * 30 + [429] * 4
    other = form.format(n=n + 0x1000, i=1)
    assert post(api, "verify-otp", other, email=new_email(), otp="000000").status_code == 400


def test_an_account_that_is_not_there_counts_like_one_that_is(api, email):
    seen = [
        statuses(login(api, address, somewhere(), "wrong guess") for _ in range(15))
        for address in (email, new_email())
    ]
    assert seen[0] == seen[1] == [401] * 10 + [429] * 5


def let_pass(api):
    """Let the minutes pass that a count and a code wait for; the hours go on.

    Also in what the workers remember, so that a refusal after it is one that was counted.
    """
    ago = datetime.now(UTC) - timedelta(minutes=2)
    with api.session() as session:
        session.execute(update(PendingProof).values(code_made_at=ago))
        soon = datetime.now(UTC) + timedelta(minutes=2)
        session.execute(delete(AttemptCount).where(AttemptCount.ends_at < soon))
        session.commit()
    time.sleep(REMEMBERED_SECONDS)


def test_new_codes_do_not_begin_a_new_count_and_the_owners_network_has_its_own(api):
    address, home, looked_at, asked = new_email(), somewhere(), 0, []
    registration = register(api, address, home).json()["id"]
    for _ in range(6):
        code = api.code_for(address)
        wrong = f"{(int(code) + 1) % 1_000_000:06}"
        answers = [
            post(api, "verify-otp", somewhere(), email=address, otp=wrong) for _ in range(12)
        ]
        looked_at += statuses(answers).count(400)
        let_pass(api)
        body = {"email": address, "registration_id": registration}
        asked.append(post(api, "request-otp", home, **body).status_code)
    assert asked == [200] * 3 + [429] * 3  # with the registration's: see `MAILED_BEFORE`
    assert looked_at <= 20
    code = api.code_for(address)
    assert post(api, "verify-otp", home, email=address, otp=code).status_code == 200


def mails(api, email):
    with api.session() as session:
        return sum(email.encode() in row.body for row in session.query(OutboxMessage))


def test_strangers_cannot_make_us_mail_to_an_address_without_end(api):
    address = new_email()
    answers = statuses(register(api, address, somewhere()) for _ in range(15))
    assert answers == [201] * 8 + [429] * 7
    for _ in range(5):
        let_pass(api)
        answer = post(api, "request-otp", somewhere(), email=address)
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 3_600) == (429, True)
    assert mails(api, address) == 8


@pytest.mark.parametrize("ask", ["request-otp", "password/reset-code"])
def test_asking_twice_in_a_minute_costs_no_email_of_the_day(api, email, ask):
    """As a form that is sent twice; that no more is mailed is said, of whatever address."""
    waiting, nobodys = new_email(), new_email()
    at = {email: somewhere(), waiting: somewhere(), nobodys: somewhere()}
    assert register(api, waiting, at[waiting]).status_code == 201
    let_pass(api)
    meant = waiting if ask == "request-otp" else email
    before = {address: codes(api, address) for address in at}
    found = {address: [] for address in at}
    for _ in range(5):
        for address, home in at.items():
            found[address].append(statuses(post(api, ask, home, email=address) for _ in range(3)))
        let_pass(api)
    for address, rounds in found.items():
        # One was mailed before; how many then are: see `MAILED_BEFORE`.
        asked = 4 if address == nobodys else 3
        assert rounds == [[200] * 3] * asked + [[429] * 3] * (5 - asked)
        assert codes(api, address) - before[address] == (asked if address == meant else 0)


def test_an_accounts_address_is_no_other_than_a_free_one(api, email):
    answers = [
        statuses(register(api, address, somewhere()) for _ in range(10))
        for address in (email, new_email())
    ]
    # One was mailed to make the account.
    assert answers == [[201] * 7 + [429] * 3, [201] * 8 + [429] * 2]


MINE = "a stranger's own password"


def codes(api, email):
    """How many were mailed: nobody's is over when it is made."""
    with api.session() as session:
        now, found = database_time(session), facts(session, AccountOtpRequested.TYPE)
        return sum(fact.email == email and fact.expires_at > now for fact in found)


def answers_of(api, email):
    """What a stranger is answered who registers at an address and then tries everything."""
    at, elsewhere = somewhere(), somewhere()
    body = {"company_name": "Stranger", "email": email, "password": MINE}
    registered = post(api, "auth/register", at, **body)
    found = [(registered.status_code, sorted(registered.json()))]
    id_ = registered.json()["id"]
    tries = [
        ("auth/login", at, {"password": MINE}),
        ("auth/login", elsewhere, {"password": MINE}),
        ("auth/login", at, {"password": "another one"}),
        ("request-otp", at, {}),
        ("request-otp", elsewhere, {"registration_id": id_}),
        ("password/reset-code", at, {}),
        *[("verify-otp", at, {"otp": "000000", "password": MINE})] * 12,
        *[("verify-otp", elsewhere, {"otp": "000000", "registration_id": id_})] * 12,
        *[("password/reset", somewhere(), {"otp": "000000", "password": MINE})] * 2,
        ("auth/login", at, {"password": MINE}),
    ]
    for path, address, more in tries:
        answer = post(api, path, address, email=email, **more)
        found.append((path, answer.status_code, answer.json().get("code")))
    return found


def test_who_registers_at_an_address_cannot_tell_whether_it_has_an_account(api, email):
    before = codes(api, email)
    taken, free = answers_of(api, email), answers_of(api, new_email())
    assert taken == free
    # Only its owner's: a code for a new password, which the stranger asked for.
    assert codes(api, email) == before + 1


def test_who_registered_first_does_not_see_another_prove_the_address(api):
    """A stranger's registration waits before an account is made, and as well after."""
    address, at, home = new_email(), somewhere(), somewhere()
    body = {"company_name": "Stranger", "email": address, "password": MINE}
    assert post(api, "auth/register", at, **body).status_code == 201
    theirs = api.code_for(address)
    assert register(api, address, home).status_code == 201
    proof = {"email": address, "otp": api.code_for(address), "password": PASSWORD}
    assert login(api, address, at, MINE).json()["code"] == "email_not_verified"
    assert post(api, "verify-otp", home, **proof).status_code == 200
    assert login(api, address, at, MINE).json()["code"] == "email_not_verified"
    answer = post(api, "verify-otp", at, email=address, otp=theirs, password=MINE)
    assert answer.json()["code"] == "invalid_otp"
    assert login(api, address, home).status_code == 200
    mailed = codes(api, address)
    let_pass(api)
    assert post(api, "request-otp", at, email=address).status_code == 200
    assert codes(api, address) == mailed


@pytest.mark.parametrize("ask", ["auth/register", "request-otp", "password/reset-code"])
def test_a_stranger_from_one_network_keeps_no_address_from_its_owner(api, email, ask):
    """However often a /64 asks, and in both workers at once; the owner asks from somewhere new."""
    n = next(networks)

    def flood(number):
        body = {"company_name": "Stranger", "email": email, "password": MINE}
        given = body if ask == "auth/register" else {"email": email}
        return post(api, ask, f"2001:db8:{n:x}::{number:x}", **given)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(flood, range(1, 25)))
        let_pass(api)
        before = codes(api, email)
        flooding = threads.map(flood, range(25, 60))
        owner = post(api, "password/reset-code", somewhere(), email=email)
        list(flooding)
    assert owner.status_code == 200
    assert codes(api, email) == before + 1


def test_a_stranger_from_one_network_keeps_nobody_from_registering(api):
    address, stranger = new_email(), somewhere()
    asked = statuses(register(api, address, stranger) for _ in range(12))
    assert 429 in asked
    home = somewhere()
    assert register(api, address, home).status_code == 201
    let_pass(api)
    mailed = codes(api, address)
    assert post(api, "request-otp", home, email=address).status_code == 200
    assert codes(api, address) == mailed + 1


def flood(api, email):
    """Strangers from as many networks as it takes use up all that strangers have.

    What they have for a minute comes last, so that none is over before it is looked at.
    """
    attempts = {
        "password/reset-code": {},
        "password/reset": {"otp": "000000", "password": MINE},
        "auth/login": {"password": "wrong guess"},
    }
    for path, body in attempts.items():
        while 429 not in statuses([post(api, path, somewhere(), email=email, **body)]):
            pass


def test_with_a_known_device_the_owner_gets_in_from_somewhere_new(api, email, home):
    token = login(api, email, home).json()["device_token"]
    flood(api, email)
    away = somewhere()
    assert login(api, email, away).status_code == 429
    for wrong in ("", "x", token[:-1], "é" * 64):
        tried = {"email": email, "password": PASSWORD, "device_token": wrong}
        assert post(api, "auth/login", somewhere(), **tried).status_code == 429
    known = {"email": email, "device_token": token}
    assert post(api, "auth/login", away, password=PASSWORD, **known).status_code == 200


def test_with_a_known_device_a_lost_password_is_set_from_somewhere_new(api, email, home):
    token = login(api, email, home).json()["device_token"]
    flood(api, email)
    away, known = somewhere(), {"email": email, "device_token": token}
    assert post(api, "password/reset-code", away, email=email).status_code == 429
    let_pass(api)  # a stranger's was mailed a moment ago
    assert post(api, "password/reset-code", away, **known).status_code == 200
    code, new = api.code_for(email), "another horse battery"
    for _ in range(6):  # strangers use up their own tries of it
        post(api, "password/reset", somewhere(), email=email, otp="000000", password=MINE)
    answer = post(api, "password/reset", away, otp=code, password=new, **known)
    assert answer.status_code == 200, answer.text
    # With the password it ends, for the one who had it before as for a thief.
    flood(api, email)
    assert post(api, "auth/login", somewhere(), password=new, **known).status_code == 429
    assert login(api, email, away, new).status_code == 200


def used_from(api, email, addresses):
    """Somebody has signed in from there: each costs a second otherwise."""
    with api.session() as session:
        account = session.scalar(select(Account.id).where(Account.email == email))
        for address in addresses:
            network = network_of(address)
            session.add(KnownNetwork(id=uuid.uuid4(), account_id=account, network=network))
        session.commit()


def known_networks(api, email):
    with api.session() as session:
        known = select(KnownNetwork.network).join(Account, Account.id == KnownNetwork.account_id)
        return session.scalars(known.where(Account.email == email)).all()


def test_who_was_signed_in_before_a_new_password_is_a_stranger_after_it(api, email, home):
    """From as many networks as they like, each of which asks for a code."""
    thief = [somewhere() for _ in range(8)]
    used_from(api, email, thief)
    assert post(api, "password/reset-code", home, email=email).status_code == 200
    code, new = api.code_for(email), "another horse battery"
    body = {"email": email, "otp": code, "password": new}
    assert post(api, "password/reset", home, **body).status_code == 200
    assert known_networks(api, email) == [network_of(home)]
    for address in thief:
        post(api, "password/reset-code", address, email=email)
    assert post(api, "password/reset-code", home, email=email).status_code == 200


def test_who_was_signed_in_before_a_new_address_is_a_stranger_after_it(api, email, home):
    wanted = new_email()
    used_from(api, email, [somewhere()])
    token = login(api, email, home).json()["access"]
    headers = {"X-Forwarded-For": home, "Authorization": f"Bearer {token}"}
    asked = {"email": wanted, "password": PASSWORD}
    assert api.http.post("/users/email/", json=asked, headers=headers).status_code == 200
    proof = {"otp": api.code_for(wanted)}
    assert api.http.post("/users/email/verify/", json=proof, headers=headers).status_code == 200
    assert known_networks(api, wanted) == [network_of(home)]


def test_floods_from_all_known_networks_hold_up_no_device_and_no_session(api, email, home):
    answer = login(api, email, home).json()
    shared = [somewhere() for _ in range(8)]
    used_from(api, email, shared)
    for address in shared:
        post(api, "password/reset-code", address, email=email)
    for address in shared[:3]:
        while login(api, email, address, "wrong guess").status_code != 429:
            pass
    known = {"email": email, "device_token": answer["device_token"]}
    assert post(api, "auth/login", home, password=PASSWORD, **known).status_code == 200
    let_pass(api)  # a code was mailed a moment ago
    assert post(api, "password/reset-code", home, **known).status_code == 200
    headers = {"X-Forwarded-For": home, "Authorization": f"Bearer {answer['access']}"}
    shown = api.http.post("/users/password/confirm/", json={"password": PASSWORD}, headers=headers)
    assert shown.status_code == 204


def test_who_changes_a_password_while_strangers_guess_signs_in_with_it(api, email, home):
    """On a journey, by the session from home; all devices are forgotten with the password."""
    token, away = login(api, email, home).json()["access"], somewhere()
    flood(api, email)
    headers = {"X-Forwarded-For": away, "Authorization": f"Bearer {token}"}
    body = {"current_password": PASSWORD, "password": "another horse battery"}
    assert api.http.post("/users/password/", json=body, headers=headers).status_code < 300
    assert login(api, email, away, "another horse battery").status_code == 200


def test_the_token_of_a_device_lets_nobody_guess_without_end(api, email, home):
    """Not from wherever, and at no other account."""
    token = login(api, email, home).json()["device_token"]
    known = {"email": email, "device_token": token, "password": "wrong guess"}
    found = statuses(post(api, "auth/login", somewhere(), **known) for _ in range(25))
    assert found == [401] * 20 + [429] * 5
    assert login(api, email, home).status_code == 200
    other = {**known, "email": new_email()}
    found = statuses(post(api, "auth/login", somewhere(), **other) for _ in range(12))
    assert found == [401] * 10 + [429] * 2


def test_who_asked_for_a_code_has_tries_of_their_own(api, email):
    """Where the account was never used from, without a device: strangers' tries are not theirs."""
    away = somewhere()
    assert post(api, "password/reset-code", away, email=email).status_code == 200
    code = api.code_for(email)
    for _ in range(6):
        post(api, "password/reset", somewhere(), email=email, otp="000000", password=MINE)
    answer = post(api, "password/reset", away, email=email, otp=code, password="new horse battery")
    assert answer.status_code == 200, answer.text


def test_who_asks_for_a_code_after_the_owner_takes_none_of_their_tries(api, email):
    """The newest code is for both, and each who asked has tries of their own."""
    away, stranger = somewhere(), somewhere()
    for asks in (away, stranger):
        assert post(api, "password/reset-code", asks, email=email).status_code == 200
        with api.session() as session:
            session.execute(
                update(PendingProof).values(code_made_at=PendingProof.code_made_at - RESEND_AFTER)
            )
            session.commit()
    code = api.code_for(email)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    for guesser in (somewhere(), stranger):
        for _ in range(5):
            post(api, "password/reset", guesser, email=email, otp=wrong, password=MINE)
    answer = post(api, "password/reset", away, email=email, otp=code, password="new horse battery")
    assert answer.status_code == 200, answer.text


def mailed_to(session, recipient, network):
    return guesses.attempts.take(*guesses.mails(session, recipient, network)) == 0


def test_a_mailbox_is_one_whatever_stands_behind_a_plus(settings, db):
    name = uuid.uuid4().hex[:10]
    tagged = [f"{name}+{n}@X.example" for n in range(30)]
    assert sum(mailed_to(db, address, network_of(somewhere())) for address in tagged) == 24
    # Nobody's requests there leave the owner's of the address itself their own.
    plain = f"{name}@x.example"
    assert sum(mailed_to(db, plain, network_of(somewhere())) for _ in range(10)) == 8


def test_one_network_leaves_others_codes_at_the_addresses_behind_a_plus(settings, db):
    name, one, other = uuid.uuid4().hex[:10], somewhere(), somewhere()
    tagged = [f"{name}+{n}@x.example" for n in range(24)]
    assert sum(mailed_to(db, address, network_of(one)) for address in tagged) == 8
    assert mailed_to(db, f"{name}+own@x.example", network_of(other))


def test_who_asks_for_a_code_behind_a_plus_has_no_claim_to_the_codes_of_the_address(settings, db):
    name, one = uuid.uuid4().hex[:10], network_of(somewhere())
    asked = guesses.ask_for_mail(db, "password_reset", f"{name}+1@x.example", one)
    assert not any(asked)
    assert guesses.is_own(db, "code", f"{name}+1@x.example", one)
    assert not guesses.is_own(db, "code", f"{name}@x.example", one)


def test_one_network_mails_so_many_strangers_an_hour_and_no_more(settings, db):
    one = network_of(somewhere())
    limit = guesses.MAILS_MINUTES * settings.sign_in_attempts_per_minute
    mailed = [mailed_to(db, new_email(), one) for _ in range(limit + 5)]
    assert mailed == [True] * limit + [False] * 5
    assert mailed_to(db, new_email(), network_of(somewhere()))


@pytest.mark.parametrize("asks_again", [False, True])
def test_who_has_the_id_of_a_registration_has_tries_of_their_own(api, asks_again):
    """They registered on a phone, and read the email at another network's computer."""
    address, away = new_email(), somewhere()
    shown = {"registration_id": register(api, address, somewhere()).json()["id"]}
    if asks_again:
        let_pass(api)
        assert post(api, "request-otp", away, email=address, **shown).status_code == 200
        shown = {}
    code = api.code_for(address)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    for _ in range(5):
        post(api, "verify-otp", somewhere(), email=address, otp=wrong)
    answer = post(api, "verify-otp", away, email=address, otp=code, **shown)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("is_mailed", [False, True], ids=["a moment ago", "anew"])
def test_a_code_that_somebody_else_asked_for_proves_no_registration_by_itself(api, is_mailed):
    """The owner of an address asks for a code: what waits there is a stranger's, alone."""
    address, at, home = new_email(), somewhere(), somewhere()
    body = {"company_name": "Stranger", "email": address, "password": MINE}
    id_ = post(api, "auth/register", at, **body).json()["id"]
    if is_mailed:
        let_pass(api)
    assert post(api, "request-otp", home, email=address).status_code == 200
    proof = {"email": address, "otp": api.code_for(address)}
    assert post(api, "verify-otp", home, **proof).json()["code"] == "several_registrations"
    assert login(api, address, at, MINE).json()["code"] == "email_not_verified"
    # Whoever asks from where it was made, or by its id, is who made it.
    assert post(api, "verify-otp", home, **proof, registration_id=id_).status_code == 200


def test_who_is_signed_in_is_none_of_the_strangers(api, email, home):
    """Their network changes, and strangers guess: what asks for the password again works."""
    token = login(api, email, home).json()["access"]
    flood(api, email)
    headers = {"X-Forwarded-For": somewhere(), "Authorization": f"Bearer {token}"}
    body = {"password": PASSWORD}
    answer = api.http.post("/users/password/confirm/", json=body, headers=headers)
    assert answer.status_code == 204


@pytest.mark.parametrize(("ask", "prove"), [("users/email", "users/email/verify"),
                                            ("email-sender", "email-sender/verify")])  # fmt: skip
def test_who_is_signed_in_proves_an_address_while_strangers_guess(api, email, home, ask, prove):
    token, wanted = login(api, email, home).json()["access"], new_email()
    away = {"X-Forwarded-For": somewhere(), "Authorization": f"Bearer {token}"}
    if ask == "users/email":
        asked = api.http.post(
            f"/{ask}/", json={"email": wanted, "password": PASSWORD}, headers=away
        )
    else:
        asked = api.http.put(f"/{ask}/", json={"reply_to": wanted}, headers=away)
    assert asked.status_code == 200
    flood(api, email)
    answer = api.http.post(f"/{prove}/", json={"otp": api.code_for(wanted)}, headers=away)
    assert answer.status_code == 200, answer.text
