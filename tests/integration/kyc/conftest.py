"""These handlers run here as services.kyc signs in."""

import pytest


@pytest.fixture
def service() -> str:
    return "kyc"
