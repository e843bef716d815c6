"""Keys are replaced, by the documented steps, without signing anybody out or losing a code."""

from contextlib import ExitStack

import pytest
from sqlalchemy import select

from services.ops import keys
from shared.bus.contract.events import AccountOtpRequested, decode
from shared.db.models import OutboxMessage
from shared.security.encryption import CannotOpenError, Sealer
from tests.integration.accounts.test_accounts import bearer, login, new_email, register, verify
from tests.integration.conftest import running_ingress


@pytest.fixture
def started(tmp_path, amqp_url, database_url):
    """Starts an ingress with the keys that a folder of secrets has at that moment."""
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    with ExitStack() as stack:

        def start(name):
            here = tmp_path / name
            here.mkdir()
            given = {key: (folder / key.lower()).read_text().strip() for key in keys.KEYS}
            ingress = running_ingress(here, amqp_url, database_url, **given, WEB_CONCURRENCY="1")
            return stack.enter_context(ingress)

        yield start, folder


def registered(api, code):
    email = new_email()
    assert register(api, email).status_code == 201
    assert verify(api, email, code(api, email)).status_code == 200
    return email


def sealed_code(api, email):
    with api.session() as session:
        rows = session.scalars(
            select(OutboxMessage).where(OutboxMessage.type == AccountOtpRequested.TYPE)
        )
        facts = [decode(row.type, row.body) for row in rows]
    (fact,) = [fact for fact in facts if fact.email == email]
    return fact.sealed_code, f"otp:{fact.code_id}"


def code_under(folder, setting="ONE_TIME_CODE_KEYS"):
    listed = (folder / setting.lower()).read_text().strip().split(",")

    def code(api, email):
        return Sealer(listed).open(*sealed_code(api, email)).decode()

    return code


def is_in(api, pair):
    return api.http.get("/users/sessions/", headers=bearer(pair["access"])).status_code == 200


def renewed(api, pair):
    answer = api.http.post("/users/auth/refresh/", json={"refresh": pair["refresh"]})
    return answer.json() if answer.status_code == 200 else None


def test_the_key_of_tokens_rotates_without_signing_anybody_out(started):
    """Each step beside the one before, as ingresses are while they are restarted."""
    start, folder = started
    before = start("old")
    email = registered(before, code_under(folder))
    pair = login(before, email).json()
    for step in (keys.add, keys.promote):
        step(folder, "JWT_SIGNING_KEY")
        after = start(step.__name__)
        fresh = login(after, email).json()
        assert is_in(after, pair)
        assert is_in(before, fresh)
        pair = renewed(after, pair)
        assert is_in(before, pair)
        pair = renewed(before, pair)
        assert is_in(after, pair)
        before = after
    forgotten = renewed(before, pair)
    old = login(start_of_old(started), email).json()
    keys.drop(folder, "JWT_SIGNING_KEY")
    last = start("dropped")
    assert is_in(last, forgotten)
    assert not is_in(last, old)
    assert renewed(last, old) is None


def start_of_old(started):
    """An ingress with the oldest key alone."""
    start, folder = started
    file = folder / "jwt_signing_key"
    listed = file.read_text()
    file.chmod(0o644)
    file.write_text(listed.strip().split(",")[-1])
    try:
        return start("oldest")
    finally:
        file.write_text(listed)


def test_codes_have_a_key_of_their_own(started):
    start, folder = started
    first = start("first")
    email = new_email()
    register(first, email)
    sealed, context = sealed_code(first, email)
    for setting in keys.KEYS:
        if setting in ("SECRET_ENCRYPTION_KEYS", "RECEIPT_SIGNING_KEYS"):
            with pytest.raises(CannotOpenError):
                Sealer([(folder / setting.lower()).read_text().strip()]).open(sealed, context)
    # With every other key new, and its own rotated, the code is right.
    for setting in keys.KEYS:
        keys.add(folder, setting)
        keys.promote(folder, setting)
        if setting != "ONE_TIME_CODE_KEYS":
            keys.drop(folder, setting)
    second = start("second")
    assert verify(second, email, code_under(folder)(second, email)).status_code == 200
    assert login(second, email).status_code == 200


def test_a_code_under_a_key_that_is_gone_is_wrong(started):
    start, folder = started
    first = start("first")
    email = new_email()
    register(first, email)
    code = code_under(folder)(first, email)
    keys.add(folder, "ONE_TIME_CODE_KEYS")
    keys.promote(folder, "ONE_TIME_CODE_KEYS")
    keys.drop(folder, "ONE_TIME_CODE_KEYS")
    assert verify(start("second"), email, code).json()["code"] == "invalid_otp"
