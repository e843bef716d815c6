"""An access token that the API refuses: because it ran out, or because the session has ended."""

from datetime import UTC, datetime, timedelta

import jwt
import msgspec
import pytest
from sqlalchemy import select, text

from services.portal.web.sessions import StoredSession
from shared.db.models import AccountSession, PortalSession
from shared.security.encryption import portal_sealer
from shared.web.tokens import hashed
from tests.integration.portal.conftest import PASSWORD


def run_out(stage, browser):
    """The access token of a browser is good by the portal's clock, and not by the API's."""
    with stage.api.session() as session, session.begin():
        row = session.get_one(PortalSession, hashed(browser.http.cookies["portal_session"]))
        about = f"portal:{bytes(row.token_hash).hex()}"
        held = msgspec.json.decode(portal_sealer().open(row.sealed, about), type=StoredSession)
        claims = jwt.decode(held.access, options={"verify_signature": False})
        late = claims | {"exp": datetime.now(UTC) + timedelta(minutes=5)}
        refused = jwt.encode(late, "a key that is none of the API's" * 2, "HS256")
        held = msgspec.structs.replace(held, access=refused)
        row.sealed = portal_sealer().seal(msgspec.json.encode(held), about)


def ended(stage, browser):
    """Everybody is signed out, elsewhere."""
    run_out(stage, browser)
    with stage.api.session() as session, session.begin():
        session.execute(text("UPDATE account_sessions SET ended_at = now() WHERE ended_at IS NULL"))


def codes(stage, email):
    """How many codes were mailed to an address."""
    of = "SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8')::json->>'email' = :email"
    with stage.api.session() as session:
        return session.scalar(text(f"{of} AND type = 'account.otp_requested'"), {"email": email})


def test_a_page_goes_on_with_another_token(stage):
    browser, email = stage.registered()
    run_out(stage, browser)
    assert "Sign out" in browser.get("/account")
    assert email in browser.page
    with stage.api.session() as session:
        live = session.scalars(select(AccountSession).where(AccountSession.ended_at.is_(None)))
        assert [row.renewed_at > row.created_at for row in live] == [True]


def test_a_form_goes_on_with_another_token_and_is_done_once(stage):
    browser, email = stage.registered()
    browser.get("/account")
    run_out(stage, browser)
    browser.send("/account/email", email=f"new-{email}", password=PASSWORD)
    assert "A new email address" in browser.page
    assert codes(stage, f"new-{email}") == 1
    browser.send("/account/email/verify", code=stage.api.code_for(f"new-{email}"))
    run_out(stage, browser)
    browser.send("/account/email/verify")
    assert "Your email address is changed" in browser.page
    assert f"<dd>new-{email}</dd>" in browser.page


def test_a_session_that_has_ended_leads_to_the_sign_in(stage):
    browser, _ = stage.registered()
    token = browser.http.cookies["portal_session"]
    ended(stage, browser)
    browser.get("/account")
    assert "Email address" in browser.page
    assert "portal_session" not in browser.http.cookies
    with stage.api.session() as session:
        assert session.get(PortalSession, hashed(token)) is None


def test_a_piece_of_a_page_does_not_become_the_sign_in(stage):
    browser, _ = stage.registered()
    ended(stage, browser)
    browser.get("/first-request/state")
    assert browser.status == 403
    assert "You are signed out" in browser.page


@pytest.mark.parametrize("tab", ["first", "second"])
def test_the_address_that_a_question_names_is_the_one_that_is_taken(stage, tab):
    """Another one was asked for in another tab, and the code is of that."""
    browser, email = stage.registered()
    pages = {}
    for name in ("first", "second"):
        browser.get("/account")
        browser.send("/account/email", email=f"{name}-{email}", password=PASSWORD)
        pages[name] = browser.page
    browser.page = pages[tab]
    browser.send("/account/email/verify", code=stage.api.code_for(f"second-{email}"))
    assert f"<dd>{tab}-{email}</dd>" in browser.page
    browser.send("/account/email/verify")
    taken = email if tab == "first" else f"second-{email}"
    assert ("The code is wrong." in browser.page) == (tab == "first")
    assert f"<dd>{taken}</dd>" in browser.get("/account")
