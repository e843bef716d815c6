"""`fellow limit`: an operator sets a business's rate."""

import pytest
from sqlalchemy import select

from services.secrets.__main__ import wire
from shared.db.models import WebhookPolicy
from tests.integration.arrange import account, consuming, depth
from tests.integration.ops.cli.test_cli import fellow


def rate_of(engine, account_):
    with engine.connect() as connection:
        query = select(WebhookPolicy.rate_per_second).where(WebhookPolicy.account_id == account_.id)
        return connection.execute(query).scalar()


def test_a_rate_and_back_to_the_default(settings, db, engine):
    business = account(db, status="approved", number="RC 17/3")
    with consuming(settings, *wire(settings).subscriptions):
        code, out, err = fellow(settings, "limit", "RC 17/3", "--per-second", "50", "--wait", "30")
        assert (code, out) == (0, ""), err
        assert f"Kettle & Co <{business.email}> has 50 a second" in err
        assert rate_of(engine, business) == 50
        code, _, err = fellow(settings, "limit", business.email, "--default", "--wait", "30")
        assert code == 0, err
    assert rate_of(engine, business) is None


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("a@shop.example", "--per-second", "5"), 1, "No business matches"),
        (("a@shop.example",), 2, "--per-second N or --default"),
        (("a@shop.example", "--per-second", "5", "--default"), 2, "--per-second N or --default"),
        (("a@shop.example", "--per-second", "0"), 2, "--per-second"),
    ],
)
def test_what_makes_no_sense_publishes_nothing(settings, db, arguments, code, says):
    found, _, err = fellow(settings, "limit", *arguments)
    assert found == code
    assert says in err
    assert "Traceback" not in err
    assert depth(settings.amqp_url, "secrets.rotate") == 0


def test_without_the_service_it_is_safe_and_says_so(settings, db):
    business = account(db)
    code, _, err = fellow(settings, "limit", str(business.id), "--per-second", "5", "--wait", "0.2")
    assert code == 1
    assert "It is safe in secrets.rotate: is services.secrets running?" in err
    assert depth(settings.amqp_url, "secrets.rotate") == 1
