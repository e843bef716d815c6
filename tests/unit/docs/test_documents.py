"""What the documents say is so: the configuration table, the paths, the compose file."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from services.ops import keys
from shared.bus import topology
from shared.config import (
    DEVELOPMENT_ENCRYPTION_KEY,
    DEVELOPMENT_JWT_KEY,
    DEVELOPMENT_RECEIPT_KEY,
    Settings,
    load,
)
from shared.roles import OPERATOR, SERVICES, login
from stack.supervisor import MODULES

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(default):
    if default in {DEVELOPMENT_ENCRYPTION_KEY, DEVELOPMENT_JWT_KEY, DEVELOPMENT_RECEIPT_KEY}:
        return "a development key"
    if default == "":
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_configuration_table_is_true():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| .+ \|$", README, re.MULTILINE)
    fields = msgspec.structs.fields(Settings)
    assert rows == [(field.encode_name, shown(field.default)) for field in fields]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document):
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / link).exists(), link
    for path in re.findall(
        r"`((?:services|shared|stack|tests|examples|docs|bench)/[\w./-]*)`", text
    ):
        assert (ROOT / path).exists(), path


def test_the_readme_begins_with_the_two_commands():
    assert README.index("make demo") < README.index("make test") < README.index("make run")
    assert len(README[: README.index("```")].splitlines()) <= 10


def test_every_make_target_that_is_named_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+)", document.read_text())
        assert set(named) <= targets, document


def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_runs_every_process():
    commands = {
        service["command"][2] for service in compose()["services"].values() if "command" in service
    }
    assert commands >= set(MODULES.values()) - {"services.ingress"}
    assert {"shared.db.migrate", "shared.bus.declare"} <= commands


def filled(environment):
    """As `docker compose` fills it in from what `fellow keys generate` makes."""
    generated = keys.generate()
    return {
        name: re.sub(
            r"\$\{(\w+)(?::[-?]([^}]*))?\}",
            lambda found: generated.get(found[1], found[2] if ":-" in found[0] else ""),
            value,
        )
        for name, value in environment.items()
    }


def test_compose_configures_what_can_be_configured():
    names = {field.encode_name for field in msgspec.structs.fields(Settings)}
    ours = [s for s in compose()["services"].values() if s["image"] == "order-fellow:latest"]
    assert len(ours) == len(MODULES) + len(["fellow", "migrations", "topology"])
    for service in ours:
        assert set(service["environment"]) <= names
        settings = load(filled(service["environment"]))
        assert settings.environment == "production"
        assert settings.smtp_host == "mailpit"


def test_every_service_in_compose_signs_in_as_itself():
    services = compose()["services"]
    for name in (*MODULES, "fellow"):
        user = login("ops" if name == "fellow" else name)
        environment = filled(services[name]["environment"])
        assert urlsplit(environment["AMQP_URL"]).username == user
        assert urlsplit(environment["DATABASE_URL"]).username == user
    for step in ("migrations", "topology"):
        given = services[step]["environment"]["SERVICE_PASSWORDS"]
        assert [part.partition("=")[0] for part in given.split(",")] == [*SERVICES, OPERATOR]


def test_compose_needs_nothing_that_keys_generate_does_not_make():
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(keys.generate())


def test_compose_publishes_to_this_machine_only():
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_queue_has_a_line_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for queue in topology.WORK_QUEUES:
        assert queue.name in text, queue.name


def test_no_committed_file_names_a_package_index():
    for name in ("requirements.lock", "requirements-dev.lock", "examples/package-lock.json"):
        text = (ROOT / name).read_text()
        assert "http://" not in text
        assert "registry." not in text
        assert "--index-url" not in text
