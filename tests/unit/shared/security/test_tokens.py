"""Bearer tokens: verified and ignored claims."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from shared.config.loading import settings
from shared.ids import new_id
from shared.security import tokens


def changed(made, **claims):
    """Return the token with other claims, validly signed."""
    claims = jwt.decode(made.text, options={"verify_signature": False}) | claims
    return jwt.encode(claims, settings().listed("JWT_SIGNING_KEY")[0], tokens.ALGORITHM)


@pytest.mark.parametrize("use", ["access", "refresh"])
@pytest.mark.parametrize("ahead", [3, 300])
def test_a_token_of_a_host_whose_clock_is_ahead_is_valid(use, ahead):
    """`iat` does not affect validity (RFC 7519, 4.1.6)."""
    made = tokens.make(new_id(), use, datetime.now(UTC))
    text = changed(made, iat=datetime.now(UTC) + timedelta(seconds=ahead))
    assert tokens.check(text, use).account_id == made.account_id


@pytest.mark.parametrize(
    "claims",
    [{"exp": "tomorrow"}, {"iss": "another"}, {"use": "other"}],
)
def test_foreign_tokens_are_refused(claims):
    made = tokens.make(new_id(), "access", datetime.now(UTC))
    with pytest.raises(tokens.InvalidTokenError):
        tokens.check(changed(made, **claims), "access")


def test_a_recently_expired_token_is_left_to_the_database():
    """Hosts' clocks differ."""
    ended = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
    text = changed(tokens.make(new_id(), "access", datetime.now(UTC)), exp=ended)
    assert tokens.check(text, "access").expires_at == ended


def test_a_long_expired_token_is_refused():
    ended = datetime.now(UTC) - timedelta(days=2)
    text = changed(tokens.make(new_id(), "access", datetime.now(UTC)), exp=ended)
    with pytest.raises(tokens.InvalidTokenError):
        tokens.check(text, "access")
