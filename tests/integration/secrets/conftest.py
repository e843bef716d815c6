"""These handlers run here as services.secrets signs in."""

import pytest


@pytest.fixture
def service() -> str:
    return "secrets"
