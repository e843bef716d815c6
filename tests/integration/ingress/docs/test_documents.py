"""What the ingress says about itself: OpenAPI, the page, health, metrics."""

import re
from html.parser import HTMLParser

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.ingress.app import OPERATIONS
from services.ingress.docs.error_codes import CODES
from tests.integration.arrange import until
from tests.integration.ingress.conftest import ORDER, approved


@pytest.fixture(scope="module")
def document(api):
    answer = api.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_the_document_is_valid(document):
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


def test_every_operation_is_in_it(document):
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described == {(o.method, "/api/v1" + o.path) for o in OPERATIONS}


def test_every_described_path_answers(api, document):
    for path, methods in document["paths"].items():
        for method in methods:
            answer = api.http.request(method, api.url + path.replace("{order_id}", "7"))
            # What one path names is not there; another's name is not even an id.
            assert answer.status_code not in {404, 405} or "{" in path, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            # The keys of receipts are for anybody.
            assert answer.status_code == 200 or {"error", "code"} <= set(answer.json())


def resolved(document, schema):
    return {**schema, "components": document["components"]}


def test_real_answers_fit_their_schemas(api, document):
    sender = approved(api)
    responses = document["paths"]["/api/v1/webhooks/orders/"]["post"]["responses"]
    for answer in (sender.send(), sender.send(b"{"), sender.send(**{"X-API-Key": "x"})):
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), resolved(document, schema))
    secret = api.http.get("/webhook/secret/", headers=sender.bearer)
    described = document["paths"]["/api/v1/webhook/secret/"]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.validate(secret.json(), resolved(document, schema))


def test_the_order_of_the_readme_fits_its_schema(document):
    body = document["paths"]["/api/v1/webhooks/orders/"]["post"]["requestBody"]
    schema = resolved(document, body["content"]["application/json"]["schema"])
    jsonschema.validate(ORDER, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(ORDER | {"item_summary": 5}, schema)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.loads = []
        self.ids = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        if tag in {"script", "link", "img", "iframe"} or "src" in given:
            self.loads.append((tag, given))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_no_internet(api):
    answer = api.http.get("/docs/")
    assert answer.status_code == 200
    page = Links()
    page.feed(answer.text)
    assert page.loads == []
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for operation in OPERATIONS:
        assert operation.path in page.text
    for sentence in ("Missing authentication headers", "X-Webhook-Signature", "invalid_signature"):
        assert sentence in page.text


def test_an_error_links_to_its_cause_and_its_cure(api):
    refused = api.http.post("/webhooks/orders/", content=b"{}")
    (link,) = refused.headers.get_list("link")
    path, anchor = re.fullmatch(r'<(/.*)#(.*)>; rel="help"', link).groups()
    page = Links()
    page.feed(api.http.get(api.url + path).text)
    assert anchor == "code-missing_authentication"
    assert {f"code-{code}" for code in CODES} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_health(api):
    answer = api.http.get(f"{api.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_metrics(api):
    sender = approved(api)
    sender.send()
    sender.send(**{"X-API-Key": "nobody"})
    answer = api.http.get(f"{api.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert sender.secret not in answer.text

    def counted():
        """What the other worker has counted is there within a second."""
        told = api.http.get(f"{api.url}/metrics").text
        return "fellow_webhook_seconds_bucket" in told and all(
            f'fellow_webhook_requests_total{{code="{code}"}}' in told
            for code in ("accepted", "invalid_api_key")
        )

    until(counted, "both are counted")


def test_metrics_are_for_internal_addresses_only(api, tmp_path):
    from tests.integration.conftest import running_ingress

    with running_ingress(tmp_path, api.amqp_url, api.database_url, TRUSTED_PROXIES="1") as behind:
        outside = {"X-Forwarded-For": "8.8.8.8"}
        assert behind.http.get(f"{behind.url}/metrics", headers=outside).status_code == 404
        inside = {"X-Forwarded-For": "10.0.0.7"}
        assert behind.http.get(f"{behind.url}/metrics", headers=inside).status_code == 200
