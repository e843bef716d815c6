"""A new event type only needs its Struct, as a separate process shows."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from services.ingress.docs import schema_view
from shared.bus.contract import events
from shared.bus.contract.events import decode
from shared.docstrings import REF
from shared.ids import new_id
from shared.intake import bodies
from shared.intake.event_bodies import BODIES

RETURNED = '''
class OrderReturned(Event, frozen=True, kw_only=True):
    """The order was returned."""

    TYPE: ClassVar[str] = "order.returned"
    EXCHANGE: ClassVar[str] = "intake"

    order_id: UUID
    account_id: UUID
    condition: Literal["whole", "broken"]


'''
WITH_IT = """
import importlib.util, json, sys, time, uuid

spec = importlib.util.spec_from_loader("shared.bus.contract.events", loader=None)
events = importlib.util.module_from_spec(spec)
sys.modules["shared.bus.contract.events"] = events
exec(sys.stdin.read(), events.__dict__)

from services.ingress.docs import openapi, page
from shared.intake import bodies
from services.ingress.app import OPERATIONS, PREFIX
from stack.generated import asyncapi

account = uuid.uuid4()
sent = {"type": "order.returned", "order_id": str(account), "condition": "broken"}
_, message = bodies.read(json.dumps(sent).encode(), account, time.time(), None)
document = openapi.document(OPERATIONS, prefix=PREFIX, server="http://x")
shown = page.DocsPage(OPERATIONS, document, PREFIX)._html.decode()
receives = asyncapi.document()["channels"]["orders.intake"]["messages"]
print(json.dumps({
    "message": [message.exchange, message.type, json.loads(message.body)["condition"]],
    "openapi": document["components"]["schemas"]["OrderReturned"]["required"],
    "asyncapi": "OrderReturned" in receives,
    "page": "order.returned" in shown and "The order was returned" in shown,
    "example": '&#34;condition&#34;: &#34;broken&#34;' in shown,
}))
"""


def test_a_new_event_type_is_one_struct():
    source = Path(events.__file__).read_text()
    at = source.index("def _concrete(")
    done = subprocess.run(
        [sys.executable, "-c", WITH_IT],
        input=source[:at] + RETURNED + source[at:],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "message": ["intake", "order.returned", "broken"],
        "openapi": ["type", "order_id", "condition"],
        "asyncapi": True,
        "page": True,
        "example": True,
    }


@pytest.mark.parametrize("type_", BODIES)
def test_the_example_of_each_event_type_is_accepted(type_):
    (reference,), schemas = msgspec.json.schema_components([BODIES[type_]], ref_template=REF)
    body = json.dumps(schema_view.example(reference, schemas)).encode()
    _, message = bodies.read(body, new_id(), time.time(), None)
    assert message.type == type_
    assert decode(message.type, message.body)


@pytest.mark.parametrize("type_", [type_ for type_ in BODIES if type_ != "order.created"])
def test_the_timestamp_of_an_update_is_documented_and_used(type_):
    """Otherwise a late retry would undo a newer update."""
    (reference,), schemas = msgspec.json.schema_components([BODIES[type_]], ref_template=REF)
    described = schemas[BODIES[type_].__name__]
    assert described["properties"]["timestamp"]["format"] == "date-time"
    assert "timestamp" not in described["required"]
    body = schema_view.example(reference, schemas) | {"timestamp": "2025-11-02T08:00:00Z"}
    _, message = bodies.read(json.dumps(body).encode(), new_id(), time.time(), None)
    assert message.body.count(b"2025-11-02T08:00:00Z") == 0
    assert message.time == datetime(2025, 11, 2, 8, tzinfo=UTC)
