"""Disabled tracing, and tracing without its packages."""

import sys

import pytest

from shared.bus.consume.batch import Batches
from shared.bus.consume.traced import batches_class
from shared.bus.contract.events import SecretRevoke
from shared.bus.contract.message import message_for
from shared.bus.publish.publisher import Publisher
from shared.bus.publish.traced import publisher_class
from shared.config.environment import ConfigurationError
from shared.config.loading import load
from shared.ids import new_id
from shared.telemetry import tracing


def test_when_disabled_all_spans_are_one_empty_object():
    tracing.configure(load({}), "tests")
    assert not tracing.is_on()
    with tracing.span("one") as one, tracing.under("00-1-1-01") as other:
        assert one is other
        assert one.traceparent is None
        assert tracing.current() is None
        event = SecretRevoke(account_id=new_id(), reason="Leaked.")
        message = message_for(event, source="tests", correlation_id="story")
    assert "traceparent" not in message.headers()


def test_when_disabled_opentelemetry_is_not_imported():
    assert publisher_class() is Publisher
    assert batches_class() is Batches


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "shared.telemetry.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    config = load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    with pytest.raises(ConfigurationError, match=r"pip install order-fellow\[tracing\]"):
        tracing.configure(config, "tests")


def test_an_endpoint_is_a_url():
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"})
