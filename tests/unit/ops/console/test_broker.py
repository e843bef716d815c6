"""The console's connection to the broker: when a failed action may be repeated."""

from types import SimpleNamespace

import pytest

from services.ops.console.app import _broker
from shared.config.settings import Settings
from shared.web.results import PageError


@pytest.mark.parametrize(("away", "alarm"), [("It is away.", None), (None, "disk")])
def test_where_nothing_was_sent_it_may_be_repeated(away, alarm):
    poller = SimpleNamespace(broker_error=away, broker_alarm=alarm)
    with pytest.raises(PageError) as refused, _broker(Settings(), poller)(None, gives=True):
        pass
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert "Nothing was sent" in refused.value.sentence
