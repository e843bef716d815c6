"""Bearer tokens: what is looked at, and what decides nothing."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from shared.config.loading import settings
from shared.ids import new_id
from shared.security import tokens


def changed(made, **claims):
    """The same token with other claims, rightly signed."""
    claims = jwt.decode(made.text, options={"verify_signature": False}) | claims
    return jwt.encode(claims, settings().listed("JWT_SIGNING_KEY")[0], tokens.ALGORITHM)


@pytest.mark.parametrize("use", ["access", "refresh"])
@pytest.mark.parametrize("ahead", [3, 300])
def test_a_token_of_a_host_whose_clock_is_ahead_is_good(use, ahead):
    """When it was made says nothing about whether it is good (RFC 7519, 4.1.6)."""
    made = tokens.make(new_id(), use, datetime.now(UTC))
    text = changed(made, iat=datetime.now(UTC) + timedelta(seconds=ahead))
    assert tokens.check(text, use).account_id == made.account_id


@pytest.mark.parametrize(
    "claims",
    [{"exp": "tomorrow"}, {"iss": "another"}, {"use": "other"}],
)
def test_what_is_not_ours_is_not(claims):
    made = tokens.make(new_id(), "access", datetime.now(UTC))
    with pytest.raises(tokens.InvalidTokenError):
        tokens.check(changed(made, **claims), "access")


def test_the_end_of_a_token_is_for_the_database_to_judge():
    """What is over here may not be over there, and the other way round."""
    ended = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
    text = changed(tokens.make(new_id(), "access", datetime.now(UTC)), exp=ended)
    assert tokens.check(text, "access").expires_at == ended


def test_what_is_over_for_days_is_over_by_any_clock():
    ended = datetime.now(UTC) - timedelta(days=2)
    text = changed(tokens.make(new_id(), "access", datetime.now(UTC)), exp=ended)
    with pytest.raises(tokens.InvalidTokenError):
        tokens.check(text, "access")
