"""The two contracts match the code, are valid, and agree with the broker's rules."""

import json
from pathlib import Path

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.bus.contract import topology
from shared.bus.contract.events import EVENT_TYPES
from stack.generated import contracts

# The official schema, unchanged: Apache-2.0, see LICENSE.asyncapi beside it.
ASYNCAPI_SCHEMA = Path(__file__).parents[2] / "contracts" / "asyncapi-3.0.0.json"
DOCUMENTS = contracts.documents()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_committed_contracts_match_the_code(name):
    committed = (contracts.FOLDER / name).read_text()
    assert committed == contracts.as_text(DOCUMENTS[name]), "run `make contracts`"


def test_openapi_is_valid():
    OpenAPIV31SpecValidator(DOCUMENTS["openapi.json"]).validate()


def asyncapi():
    return json.loads(json.dumps(DOCUMENTS["asyncapi.json"]))


def asyncapi_validator():
    return jsonschema.Draft7Validator(json.loads(ASYNCAPI_SCHEMA.read_text()))


def test_asyncapi_is_valid():
    asyncapi_validator().validate(asyncapi())


def test_the_asyncapi_schema_refuses_an_invalid_document():
    wrong = asyncapi()
    next(iter(wrong["channels"].values()))["bindings"]["amqp"]["exchange"]["type"] = "pigeon"
    with pytest.raises(jsonschema.ValidationError):
        asyncapi_validator().validate(wrong)


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_in_asyncapi_leads_somewhere():
    document = asyncapi()
    found = set(references(document))
    assert found
    for reference in found:
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_asyncapi_has_every_message_and_queue():
    document = asyncapi()
    named = {message["name"] for message in document["components"]["messages"].values()}
    assert named == set(EVENT_TYPES)
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses >= {queue.name for queue in topology.QUEUES} | set(EVENT_TYPES)


def test_every_message_has_a_sender_and_every_work_queue_one_receiver():
    operations = asyncapi()["operations"].values()
    sent = {
        name
        for operation in operations
        if operation["action"] == "send"
        for name in (reference["$ref"].rpartition("/")[2] for reference in operation["messages"])
    }
    assert sent == {struct.__name__ for struct in EVENT_TYPES.values()}
    received = [o["channel"]["$ref"] for o in operations if o["action"] == "receive"]
    for queue in topology.WORK_QUEUES:
        assert received.count(f"#/channels/{queue.name}") == 1


def test_a_real_message_fits_its_schema():
    document = asyncapi()
    message = document["components"]["messages"]["SecretRotate"]
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "0197a0a2-0000-7000-8000-000000000000",
        "ce-source": "services.ingress",
        "ce-type": "secret.rotate",
        "ce-time": "2026-11-24T10:00:00.000+00:00",
        "ce-subject": "0197a0a2-0000-7000-8000-000000000000",
    }
    validator = jsonschema.Draft7Validator(
        message["headers"] | {"components": document["components"]}
    )
    validator.validate(headers)
    assert not validator.is_valid(headers | {"ce-type": "secret.revoke"})
    assert not validator.is_valid({})
