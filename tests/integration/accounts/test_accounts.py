"""Registration, proof of the address, sign-in: over HTTP, on a real database."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from sqlalchemy import delete, update

from shared.config.settings import DEVELOPMENT_JWT_KEY
from shared.db.models import Account, AttemptCount, PendingProof
from shared.security import tokens
from tests.integration.conftest import running_ingress

PASSWORD = "correct horse battery"


def new_email():
    return f"it-{uuid.uuid4().hex[:10]}@kettle.example"


def register(api, email, **changes):
    body = {"company_name": "Kettle & Co", "email": email, "password": PASSWORD} | changes
    return api.http.post("/users/auth/register/", json=body)


def verify(api, email, otp, **more):
    return api.http.post("/users/verify-otp/", json={"email": email, "otp": otp} | more)


def login(api, email, password=PASSWORD):
    return api.http.post("/users/auth/login/", json={"email": email, "password": password})


def age_code(api, **changes):
    """Let what waits be older, and the minute pass in which no other code is mailed."""
    with api.session() as session:
        session.execute(update(PendingProof).values(**changes))
        soon = datetime.now(UTC) + timedelta(minutes=2)
        session.execute(delete(AttemptCount).where(AttemptCount.ends_at < soon))
        session.commit()


@pytest.fixture
def email(api):
    """The address of a proved account."""
    address = new_email()
    assert register(api, address).status_code == 201
    assert verify(api, address, api.code_for(address)).status_code == 200
    return address


def test_the_way_in(api):
    address = new_email()
    registered = register(api, address.upper().replace("KETTLE.EXAMPLE", "kettle.example"))
    assert registered.status_code == 201
    assert set(registered.json()) == {"id", "company_name", "email"}
    assert registered.json()["email"] == address
    assert login(api, address).json()["code"] == "email_not_verified"
    assert verify(api, address, api.code_for(address)).json()["detail"]
    answer = login(api, address.upper())
    assert answer.status_code == 200
    shown = {"access", "refresh", "id", "company_name", "email", "device_token"}
    assert set(answer.json()) == shown
    assert answer.headers["cache-control"] == "no-store"


def test_a_path_answers_without_its_trailing_slash(api):
    assert api.http.post("/users/auth/login", json={}).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"email": "nobody"},
        {"email": "a@b"},
        {"password": "short"},
        {"password": 12345678},
        {"company_name": ""},
        {"company_name": "   "},
        {"company_name": "Kettle\r\nBcc: x"},
        {"company_name": "nul\x00"},
        {"company_name": "\u3164"},
        {"company_name": "Kettle\u202eoC"},
        {"company_name": "Ket\u034ftle"},
    ],
)
def test_a_bad_registration_is_refused(api, changes):
    answer = register(api, **({"email": new_email()} | changes))
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_body"


@pytest.mark.parametrize(
    ("password", "faults"),
    [
        ("password", 1),
        ("PassWord", 1),
        ("12345678", 2),
        ("aaaaaaaaaaaa", 1),
        ("stuvwxyz", 1),
        ("{email}", 1),
        ("{local}", 1),
        ("kettle AND co", 0),
        ("Kettle & Co", 1),
        ("abc123", 2),
        ("e\u0301" * 7, 2),
        ("e\u0301" * 8 + "x", 0),
        ("pass word " * 13, 1),
        ("pass word " * 12, 0),
    ],
)
def test_a_password_is_refused_for_everything_that_is_wrong_with_it(api, password, faults):
    address = new_email()
    password = password.format(email=address, local=address.partition("@")[0])
    answer = register(api, address, password=password)
    assert answer.status_code == (400 if faults else 201), answer.text
    assert len(answer.json().get("faults", ())) == faults


def test_a_password_is_the_same_however_a_keyboard_writes_it(api):
    address = new_email()
    assert register(api, address, password="Caf\u00e9 au lait").status_code == 201
    assert verify(api, address, api.code_for(address)).status_code == 200
    assert login(api, address, "Cafe\u0301 au lait").status_code == 200


def test_registering_a_taken_address_answers_as_any_other(api, email):
    taken, free = register(api, email), register(api, new_email())
    assert taken.status_code == free.status_code == 201
    assert set(taken.json()) == set(free.json())
    assert login(api, email).status_code == 200
    assert login(api, email).json()["id"] != taken.json()["id"]


STRANGERS = "a stranger's password"


@pytest.mark.parametrize("stranger_is_first", [True, False])
@pytest.mark.parametrize("with_theirs", [False, True], ids=["own code", "a stranger's code"])
@pytest.mark.parametrize("by", ["password", "registration_id"])
def test_who_registers_somebody_elses_address_gets_nothing(api, stranger_is_first, by, with_theirs):
    """Whichever came first, and from the same network: the owner's code proves the owner's own."""
    address = new_email()
    if stranger_is_first:
        register(api, address, password=STRANGERS, company_name="Stranger")
        theirs = api.code_for(address)
    mine = register(api, address).json()
    code = api.code_for(address)
    if not stranger_is_first:
        register(api, address, password=STRANGERS, company_name="Stranger")
        theirs = api.code_for(address)
    me = {by: {"password": PASSWORD, "registration_id": mine["id"]}[by]}
    assert verify(api, address, code).json()["code"] == "several_registrations"
    # Whichever was mailed, it is the mailbox that it proves; which is meant is said by its maker.
    assert verify(api, address, code, password="nobody's at all").json()["code"] == "invalid_otp"
    assert verify(api, address, theirs if with_theirs else code, **me).status_code == 200
    # Told as one who waits, which tells nothing of the account that there is now.
    assert login(api, address, STRANGERS).json()["code"] == "email_not_verified"
    signed_in = login(api, address).json()
    assert (signed_in["id"], signed_in["company_name"]) == (mine["id"], "Kettle & Co")
    assert verify(api, address, theirs, password=STRANGERS).status_code == 400


def test_a_proved_address_is_no_strangers_any_more(api, email):
    code = api.code_for(email)
    register(api, email, password=STRANGERS)
    assert api.code_for(email) == code
    assert login(api, email, STRANGERS).json()["code"] == "email_not_verified"
    assert login(api, email).status_code == 200


def test_the_code_before_is_void(api):
    address = new_email()
    register(api, address)
    old = api.code_for(address)
    age_code(api, code_made_at=datetime.now(UTC) - timedelta(minutes=2))
    assert api.http.post("/users/request-otp/", json={"email": address}).status_code == 200
    new = api.code_for(address)
    if old != new:
        assert verify(api, address, old).json()["code"] == "invalid_otp"
    assert verify(api, address, new).status_code == 200


def test_a_new_code_can_be_had_for_the_registration_that_is_meant(api):
    address = new_email()
    mine = register(api, address).json()["id"]
    register(api, address, password=STRANGERS)
    age_code(api, code_made_at=datetime.now(UTC) - timedelta(minutes=2))
    body = {"email": address, "registration_id": mine}
    assert api.http.post("/users/request-otp/", json=body).status_code == 200
    code = api.code_for(address)
    assert verify(api, address, code, password=PASSWORD).status_code == 200


def wrong(code):
    return f"{(int(code) + 1) % 1_000_000:06}"


def test_five_wrong_codes_lock(api):
    address = new_email()
    register(api, address)
    code = api.code_for(address)
    for _ in range(5):
        assert verify(api, address, wrong(code)).json()["code"] == "invalid_otp"
    assert verify(api, address, code).json()["code"] == "otp_locked"
    # Who came upon the digits by guessing has been told: they are good for nobody any more.
    assert verify(api, address, code).json()["code"] == "invalid_otp"


def test_wrong_codes_at_once_are_all_counted(api):
    address = new_email()
    register(api, address)
    code = api.code_for(address)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: verify(api, address, wrong(code)), range(8)))
    assert verify(api, address, code).json()["code"] == "otp_locked"


def test_a_code_expires_and_another_can_be_had(api):
    address = new_email()
    register(api, address)
    code = api.code_for(address)
    long_ago = datetime.now(UTC) - timedelta(minutes=11)
    age_code(api, code_expires_at=long_ago + timedelta(minutes=10), code_made_at=long_ago)
    assert verify(api, address, code).json()["code"] == "otp_expired"
    assert api.http.post("/users/request-otp/", json={"email": address}).status_code == 200
    assert verify(api, address, api.code_for(address)).status_code == 200


def test_a_later_code_is_good_for_as_long_as_its_email_says(api):
    """It waits in the row of the first one, whose time is over."""
    address = new_email()
    register(api, address)
    age_code(api, created_at=datetime.now(UTC) - timedelta(days=30))
    assert verify(api, address, api.code_for(address)).status_code == 200


def test_a_code_works_once(api, email):
    assert verify(api, email, "000000").json()["code"] == "invalid_otp"


def test_request_otp_tells_nobody_who_is_here(api, email):
    answers = [
        api.http.post("/users/request-otp/", json={"email": address})
        for address in (email, new_email())
    ]
    assert answers[0].status_code == answers[1].status_code == 200
    assert answers[0].json() == answers[1].json()


def test_wrong_credentials_look_the_same_for_all(api, email):
    known, unknown = login(api, email, "wrong password"), login(api, new_email())
    assert known.status_code == unknown.status_code == 401
    assert known.json() == unknown.json()


def test_a_refresh_token_works_once(api, email):
    first = login(api, email).json()
    answer = api.http.post("/users/auth/refresh/", json={"refresh": first["refresh"]})
    assert answer.status_code == 200
    assert answer.json()["refresh"] != first["refresh"]
    again = api.http.post("/users/auth/refresh/", json={"refresh": first["refresh"]})
    assert again.json()["code"] == "invalid_refresh_token"


def test_logout_ends_a_refresh_token(api, email):
    tokens_ = login(api, email).json()
    body = {"refresh": tokens_["refresh"]}
    assert api.http.post("/users/auth/logout/", json=body).status_code == 204
    assert api.http.post("/users/auth/refresh/", json=body).status_code == 401


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def test_only_an_access_token_of_ours_opens(api, email):
    signed_in = login(api, email).json()
    claims = jwt.decode(signed_in["access"], options={"verify_signature": False})
    expired = claims | {"exp": 1, "iat": 0}
    bad = {
        "none": jwt.encode(claims, None, algorithm="none"),
        "another key": jwt.encode(claims, "k" * 48, algorithm="HS256"),
        "another algorithm": jwt.encode(claims, DEVELOPMENT_JWT_KEY * 2, algorithm="HS512"),
        "expired": jwt.encode(expired, DEVELOPMENT_JWT_KEY, algorithm=tokens.ALGORITHM),
        "refresh": signed_in["refresh"],
        "nonsense": "a.b.c",
    }
    for name, text in bad.items():
        answer = api.http.get("/kyc/", headers=bearer(text))
        assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in"), name
    assert api.http.get("/kyc/").headers["www-authenticate"] == "Bearer"
    assert api.http.get("/kyc/", headers=bearer(signed_in["access"])).status_code == 404


def test_an_access_token_does_not_refresh(api, email):
    body = {"refresh": login(api, email).json()["access"]}
    assert api.http.post("/users/auth/refresh/", json=body).status_code == 401


def test_nothing_is_kept_in_the_clear(api, email):
    address = new_email()
    register(api, address)
    code = api.code_for(address)
    with api.session() as session:
        stored = session.query(PendingProof).filter_by(email=address).one()
        proved = session.query(Account).filter_by(email=email).one()
        for hashed in (stored.password_hash, proved.password_hash):
            assert PASSWORD not in hashed
            assert hashed.startswith("$argon2id$")
        assert code.encode() not in stored.code_hash


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"email": ' + b"[" * 30_000, b"1" * 10_000, b'"x"'],
)
def test_nonsense_is_a_400(api, body):
    answer = api.http.post("/users/auth/login/", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


def test_a_huge_body_is_a_413(api):
    answer = api.http.post("/users/auth/login/", content=b"x" * 70_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_one_accounts_password_cannot_be_tried_from_many_addresses(
    amqp_url, database_url, tmp_path
):
    """Each attempt from another address; the account's own limit holds, known or unknown alike."""
    with running_ingress(
        tmp_path,
        amqp_url,
        database_url,
        ACCOUNT_ATTEMPTS_PER_MINUTE="5",
        SIGN_IN_ATTEMPTS_PER_MINUTE="5",
        WEB_CONCURRENCY="1",
        TRUSTED_PROXIES="1",
    ) as api:
        known, unknown = new_email(), new_email()
        assert register(api, known).status_code == 201

        def attempt(path, address, number, **body):
            return api.http.post(
                f"/users/{path}/",
                json={"email": address, **body},
                headers={"X-Forwarded-For": f"198.51.100.{number}"},
            )

        for address in (known, unknown.upper()):
            answers = [
                attempt("auth/login", address, n, password="guess number x") for n in range(8)
            ]
            assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
            assert int(answers[-1].headers["Retry-After"]) >= 1
        other = new_email()
        assert attempt("auth/login", other, 99, password="guess number x").status_code == 401
        answers = [attempt("verify-otp", other, 100 + n, otp="000000") for n in range(8)]
        assert 429 in {answer.status_code for answer in answers}
