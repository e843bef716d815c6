"""The API against its own OpenAPI: whatever fits the contract, or nearly, the answer is in it.

`SCHEMATHESIS_CASES=1000` tries more; the cases are the same at each run.
"""

import os

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

from stack.contracts import documents
from tests.integration.arrange import sign
from tests.integration.ingress.conftest import approved

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
def secret(api):
    return approved(api).secret


contract = schemathesis.openapi.from_dict(documents()["openapi.json"])


@contract.parametrize()
@hypothesis.settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_answer_is_in_the_contract(case, api, signed_in, secret):
    arguments = case.as_transport_kwargs(base_url=api.url)
    request = requests.Request(**arguments).prepare()
    if case.path.startswith("/api/v1/webhooks/orders"):
        # Signed, so that it gets past the 401.
        request.headers.update(sign(secret, _bytes(request.body)))
    else:
        request.headers.update(signed_in)
    with requests.Session() as session:
        response = session.send(request, timeout=20)
    case.validate_response(response, checks=CHECKS)


def _bytes(body):
    return body.encode() if isinstance(body, str) else body or b""
