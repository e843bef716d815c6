"""These handlers run here as services.notifier signs in."""

import pytest


@pytest.fixture
def service() -> str:
    return "notifier"
