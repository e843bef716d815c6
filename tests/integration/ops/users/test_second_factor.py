"""The second factor of the console's users, in the database as services.ops signs in there."""

import threading
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
import structlog
from sqlalchemy import select, text

from services.ops import keys
from services.ops.users import resealing, second_factor, sessions, users
from shared.db.models import OpsRecoveryCode, OpsSecondFactor
from shared.db.session import transaction
from shared.security.encryption import CannotOpenError, second_factor_sealer

PASSWORD = "correct horse battery"
TOKEN = "of the session that it is shown to"
NOW = datetime(2026, 11, 29, 12, 0, 7, tzinfo=UTC)
STEP = timedelta(seconds=30)


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def ada(settings):
    return made("ada")


def made(name):
    with transaction() as session:
        users.put(session, name, "watch", PASSWORD)
        return users.verify(session, name, PASSWORD)


def offered(user):
    with transaction() as session:
        second_factor.offer(session, user.id, TOKEN)
        return second_factor.offered(session, user.id, user.name, TOKEN)


def set_up(user, at=NOW):
    """The authenticator app of somebody who has one, and their recovery codes."""
    app = pyotp.TOTP(offered(user).secret)
    with transaction() as session:
        codes = second_factor.confirm(session, user.id, app.at(at), TOKEN, at)
    assert codes is not None
    return app, codes


def take(user, code, at=NOW):
    with transaction() as session:
        return second_factor.check(session, user.id, code, at)


def asked_for(user):
    with transaction() as session:
        return users.verify(session, user.name, PASSWORD).has_second_factor


def test_it_counts_once_a_code_confirms_it(settings, ada):
    app = pyotp.TOTP(offered(ada).secret)
    assert not asked_for(ada)
    assert take(ada, app.at(NOW)) is None
    with transaction() as session:
        assert second_factor.confirm(session, ada.id, "000000", TOKEN, NOW) is None
    assert not asked_for(ada)
    with transaction() as session:
        assert len(second_factor.confirm(session, ada.id, app.at(NOW), TOKEN, NOW)) == 10
    assert asked_for(ada)


def test_what_an_app_takes_in_names_the_user_and_the_issuer(settings, ada):
    shown = offered(ada)
    parsed = pyotp.parse_uri(shown.uri)
    assert (parsed.name, parsed.issuer, parsed.secret) == ("ada", "Order Fellow", shown.secret)
    assert len(shown.secret) == 32


def test_a_code_is_taken_once_and_none_that_is_older(settings, ada):
    app, _ = set_up(ada)
    # The one that confirmed it, too.
    assert take(ada, app.at(NOW)) is None
    assert take(ada, app.at(NOW + STEP), NOW + STEP) == "code"
    assert take(ada, app.at(NOW + STEP), NOW + STEP) is None
    assert take(ada, app.at(NOW), NOW + STEP) is None
    assert take(ada, app.at(NOW + 2 * STEP), NOW + 2 * STEP) == "code"


@pytest.mark.parametrize(("steps", "is_taken"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_clock_may_be_off_by_one_step(settings, ada, steps, is_taken):
    app, _ = set_up(ada)
    later = NOW + 10 * STEP
    code = app.at(later + steps * STEP)
    assert (take(ada, f" {code[:3]} {code[3:]} ", later) == "code") is is_taken


def test_a_database_clock_that_was_ahead_locks_nobody_out(settings, ada):
    app, _ = set_up(ada)
    ahead = NOW + timedelta(days=1)
    assert take(ada, app.at(ahead), ahead) == "code"
    with structlog.testing.capture_logs() as said:
        assert take(ada, app.at(NOW + STEP), NOW + STEP) == "code"
        assert take(ada, app.at(NOW + STEP), NOW + STEP) is None
    (line,) = said
    assert (line["event"], line["seconds"]) == ("second_factor_step_set_aside", 86_370)
    # By minutes, as of a standby: a code that was taken is not taken again.
    assert take(ada, app.at(NOW + 9 * STEP), NOW + 9 * STEP) == "code"
    assert take(ada, app.at(NOW + 2 * STEP), NOW + 2 * STEP) is None


def test_a_refused_code_of_a_slow_clock_says_by_how_much(settings, ada):
    app, _ = set_up(ada)
    later = NOW + 60 * STEP

    def seconds_late(code):
        with transaction() as session:
            return second_factor.seconds_late(session, ada.id, code, later)

    assert seconds_late(app.at(later - 3 * STEP)) == 90
    assert seconds_late(app.at(later - 20 * STEP)) == 600
    assert take(ada, app.at(later), later) == "code"
    # Of none that is valid soon, used, or out of reach.
    for steps in (-3, 0, 2, 5, -21):
        assert seconds_late(app.at(later + steps * STEP)) == 0


def test_of_two_at_once_with_one_code_one_gets_in(settings, ada):
    app, _ = set_up(ada)
    later, taken = NOW + STEP, []
    start = threading.Barrier(2)

    def attempt():
        start.wait()
        taken.append(take(ada, app.at(later), later))

    both = [threading.Thread(target=attempt) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(taken, key=str) == [None, "code"]


def test_a_recovery_code_works_once_and_for_its_own_user(settings, ada):
    _, codes = set_up(ada)
    wole = made("wole")
    set_up(wole)
    assert len(set(codes)) == 10
    assert take(wole, codes[0]) is None
    assert take(ada, codes[0].upper().replace("-", " ")) == "recovery_code"
    assert take(ada, codes[0]) is None
    assert take(ada, codes[1]) == "recovery_code"
    with transaction() as session:
        assert second_factor.standing(session, ada.id).recovery_codes == 8
        newer = second_factor.make_recovery_codes(session, ada.id)
    assert take(ada, codes[2]) is None
    assert take(ada, newer[2]) == "recovery_code"


def test_nothing_of_it_is_in_the_clear(settings, db, ada):
    app, codes = set_up(ada)
    again = offered(ada)
    rows = str(db.execute(text("SELECT * FROM ops_second_factors")).all())
    (row,) = db.scalars(select(OpsSecondFactor)).all()
    for secret in (app.secret, again.secret):
        assert secret not in rows
        assert secret.encode() not in bytes(row.sealed) + bytes(row.offered)
    hashes = b"".join(bytes(h) for h in db.scalars(select(OpsRecoveryCode.code_hash)))
    assert hashes
    assert not any(code.replace("-", "").encode() in hashes for code in codes)


def test_one_users_secret_is_worth_nothing_in_anothers_row(settings, db, ada):
    app, _ = set_up(ada)
    wole = made("wole")
    set_up(wole)
    sealed = db.get(OpsSecondFactor, ada.id).sealed
    db.get(OpsSecondFactor, wole.id).sealed = sealed
    db.commit()
    with pytest.raises(CannotOpenError):
        take(wole, app.at(NOW + STEP), NOW + STEP)


def test_the_one_before_counts_until_another_is_confirmed(settings, ada):
    old, codes = set_up(ada)
    new = pyotp.TOTP(offered(ada).secret)
    later = NOW + STEP
    assert take(ada, new.at(later), later) is None
    assert take(ada, old.at(later), later) == "code"
    later += STEP
    with transaction() as session:
        assert second_factor.confirm(session, ada.id, new.at(later), TOKEN, later)
    later += STEP
    assert take(ada, old.at(later), later) is None
    assert take(ada, new.at(later), later) == "code"
    assert take(ada, codes[0], later) is None


def test_what_awaits_its_code_is_no_session(settings, db, ada):
    with transaction() as session:
        token = sessions.start(session, ada, awaits_code=True)
    with transaction() as session:
        assert sessions.find(session, token, settings) is None
        assert sessions.awaiting(session, token, settings).name == "ada"
        whole = sessions.start(session, ada)
        assert sessions.awaiting(session, whole, settings) is None
    db.execute(text("UPDATE ops_sessions SET created_at = created_at - interval '6 minutes'"))
    db.commit()
    with transaction() as session:
        assert sessions.awaiting(session, token, settings) is None
        assert sessions.find(session, whole, settings) is not None


def test_a_reset_takes_all_of_it_and_the_sessions(settings, ada):
    app, codes = set_up(ada)
    with transaction() as session:
        token = sessions.start(session, ada)
        assert second_factor.reset(session, " Ada ")
        assert not second_factor.reset(session, "ada")
        assert sessions.find(session, token, settings) is None
    assert not asked_for(ada)
    assert take(ada, app.at(NOW + STEP), NOW + STEP) is None
    assert take(ada, codes[0]) is None


def test_its_key_rotates(settings, configure, db, ada):
    app, _ = set_up(ada)
    first = settings.second_factor_keys
    second = keys.generate()["SECOND_FACTOR_KEYS"]
    configure(second_factor_keys=f"{second},{first}")
    with transaction() as session:
        assert resealing.seal_again(session) == 1
    with transaction() as session:
        assert resealing.seal_again(session) == 0
    configure(second_factor_keys=second)
    later = NOW + STEP
    assert take(ada, app.at(later), later) == "code"
    # One that no key opens is left as it is.
    configure(second_factor_keys=keys.generate()["SECOND_FACTOR_KEYS"])
    with transaction() as session:
        assert resealing.seal_again(session) == 0
    sealed = bytes(db.get(OpsSecondFactor, ada.id).sealed)
    assert not sealed.startswith(second_factor_sealer().current_key_id)


def test_what_was_offered_is_for_one_session_and_a_quarter_of_an_hour(settings, db, ada):
    """Whoever finds a page that was left open, or another session, makes nothing theirs."""
    app = pyotp.TOTP(offered(ada).secret)

    def tried(token=TOKEN):
        with transaction() as session:
            shown = second_factor.offered(session, ada.id, "ada", token)
            return bool(shown), second_factor.confirm(session, ada.id, app.at(NOW), token, NOW)

    assert tried("another session") == (False, None)
    moved = text("UPDATE ops_second_factors SET offered_at = offered_at - interval '16 minutes'")
    db.execute(moved)
    db.commit()
    assert tried() == (False, None)
    assert not asked_for(ada)
    second_factor.forget_offers()
    (row,) = db.scalars(select(OpsSecondFactor)).all()
    assert (row.offered, row.offered_at, row.offered_to) == (None, None, None)
    offered(ada)
    second_factor.forget_offers()
    db.expire_all()
    assert row.offered is not None


def test_a_new_password_takes_back_what_was_offered(settings, db, ada):
    offered(ada)
    with transaction() as session:
        users.put(session, "ada", "watch", "another horse battery")
    (row,) = db.scalars(select(OpsSecondFactor)).all()
    assert (row.offered, row.offered_at, row.offered_to) == (None, None, None)


def test_an_enrolment_code_is_for_who_has_no_second_factor(settings, ada):
    with transaction() as session:
        code = second_factor.make_enrolment_code(session, " Ada ")
        newer = second_factor.make_enrolment_code(session, "ada")
        assert second_factor.make_enrolment_code(session, "nobody") == ""
    assert take(ada, code) is None
    assert take(ada, newer) == "recovery_code"
    _, codes = set_up(ada)
    with transaction() as session:
        assert second_factor.make_enrolment_code(session, "ada") == ""
    assert take(ada, codes[0]) == "recovery_code"
