"""The API against its own OpenAPI: whatever fits the contract, or nearly, the answer is in it.

`SCHEMATHESIS_CASES=1000` tries more; the cases are the same at each run.
"""

import base64
import os
import uuid
from datetime import UTC, datetime

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from standardwebhooks import Webhook

from stack.generated.contracts import documents
from tests.integration.arrange import PATIENCE, sign
from tests.integration.ingress.conftest import approved
from tests.unit.ingress.platforms import orders

OF_SHOPIFY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CASES = int(os.environ.get("SCHEMATHESIS_CASES", "25"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def signed_in(api):
    return approved(api).bearer


@pytest.fixture(scope="module")
def sender(api):
    found, given = approved(api), {"secret": OF_SHOPIFY}
    answer = api.http.put("/webhook/secret/shopify/", headers=found.bearer, json=given)
    assert answer.status_code == 200, answer.text
    return found


CONTRACT = documents()["openapi.json"]
OPERATIONS = [
    (path, method) for path, operations in CONTRACT["paths"].items() for method in operations
]


@pytest.fixture(params=OPERATIONS, ids=lambda where: f"{where[1].upper()} {where[0]}")
def operation(request):
    """The contract of one operation; read when its test runs, since its examples take long."""
    request.node._nodeid = request.node.nodeid  # schemathesis 4.32 reads it, pytest 9.2 has none
    path, method = request.param
    alone = {path: {method: CONTRACT["paths"][path][method]}}
    return schemathesis.openapi.from_dict({**CONTRACT, "paths": alone})


@schemathesis.pytest.from_fixture("operation").parametrize()
@hypothesis.settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_answer_is_in_the_contract(case, api, signed_in, sender):
    if "/webhooks/{account_id}/" in case.path:
        case.path_parameters = {"account_id": str(sender.account_id)}
    request = requests.Request(**case.as_transport_kwargs(base_url=api.url)).prepare()
    # Signed, so that it gets past the 401.
    request.headers.update(_authentication(case.path, sender, signed_in, _bytes(request.body)))
    with requests.Session() as session:
        response = session.send(request, timeout=PATIENCE)
    case.validate_response(response, checks=CHECKS)


def _authentication(path, sender, signed_in, body):
    json = {"Content-Type": "application/json"}
    if path.endswith("/woocommerce/"):
        signature = orders.signature(sender.secret, body)
        topic = {"X-WC-Webhook-Topic": "order.created"}
        return json | topic | {"X-WC-Webhook-Signature": signature}
    if path.endswith("/shopify/"):
        topic = {"X-Shopify-Topic": "orders/create"}
        return json | topic | {"X-Shopify-Hmac-Sha256": orders.signature(OF_SHOPIFY, body)}
    if path.endswith("/webhooks/orders/"):
        return sign(sender.secret, body)
    if path.endswith("/{account_id}/orders/"):
        id_, now = f"msg_{uuid.uuid4()}", datetime.now(UTC)
        raw = base64.urlsafe_b64decode(sender.secret.removeprefix("whsk_") + "=")
        return json | {
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(raw).sign(id_, now, body.decode(errors="replace")),
        }
    return signed_in


def _bytes(body):
    return body.encode() if isinstance(body, str) else body or b""
