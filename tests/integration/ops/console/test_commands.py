"""What the page of a business says of its commands: what works on, and what was refused."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.db.models import WebhookPublicKey, WebhookSecret
from shared.ids import new_id
from tests.integration.arrange import account
from tests.integration.ops.console.test_masked_pages import console, form, service, signed_in
from tests.integration.ops.console.test_queue_rights import letter

__all__ = ["console", "service"]


def secret(business, state="active", platform="", *, days=0, is_test=False):
    at = datetime.now(UTC) - timedelta(days=days)
    return WebhookSecret(
        account_id=business.id,
        platform=platform,
        is_test=is_test,
        key_hash=new_id().bytes * 2,
        sealed=b"x",
        state=state,
        issued_at=at,
        expires_at=at + timedelta(days=900),
    )


@pytest.fixture
def business(db):
    """One whose own secret is the oldest of many."""
    made = account(db, status="approved", company_name="Kettle & Co")
    db.add_all(secret(made, "revoked", days=number) for number in range(130))
    db.add_all([secret(made, days=300), secret(made, platform="shopify", days=300)])
    keys = [new_id().bytes * 2 for _ in range(2)]
    db.add_all(WebhookPublicKey(account_id=made.id, public_key=key, state="active") for key in keys)
    db.commit()
    return made


def test_what_works_on_is_named_and_what_works_is_listed_first(console, db, business):
    with signed_in(console, db, "kyc") as client:
        page = client.get(f"/accounts/{business.id}").text
        assert page.count('<span class="tag">active</span>') == 4
        assert "And 32 more that have ended." in page
        assert "1 Shopify secret, 2 public keys work on" in page
        for command in ("replace", "replace_at_once"):
            asked = client.post(
                f"/accounts/{business.id}", data=form(client) | {"command": command}
            ).text
            assert "<dt>Goes on working</dt><dd>1 Shopify secret, 2 public keys</dd>" in asked
        revoke = {"command": "revoke", "reason": "x"}
        asked = client.post(f"/accounts/{business.id}", data=form(client) | revoke).text
        assert "also the secrets of its shops and its public keys" in asked


@pytest.mark.parametrize(
    ("queue", "type_", "path"),
    [
        ("secrets.rotate", "secret.revoke", "/accounts/{account}/outcomes/{message}"),
        ("kyc.decisions", "kyc.decide", "/kyc/outcomes/{message}"),
    ],
)
def test_a_refusal_is_shown_with_its_reason(console, db, business, amqp_url, queue, type_, path):
    id_ = letter(amqp_url, queue, type_, {"account_id": str(business.id)})
    to = path.format(account=business.id, message=id_)
    with signed_in(console, db, "kyc") as client:
        page = client.get(to, params={"account": str(business.id), "look": "2"}).text
        assert "Refused: no business matches" in page
        assert f'href="/dead/{queue}"' in page
        assert "running?" not in page
        never = path.format(account=business.id, message=new_id())
        page = client.get(never, params={"account": str(business.id), "look": "62"}).text
        assert f"It is safe in {queue}: is services.{queue.partition('.')[0]} running?" in page
