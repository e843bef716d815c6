"""The checks of docker-compose.yml hold with docker-compose.cluster.yml too."""

import os
import re
import subprocess

import pytest
from sqlalchemy import make_url

from services.ops import keys
from stack.folders import ROOT
from tests.unit.docs import composed, test_documents
from tests.unit.docs.test_documents import (  # noqa: F401 - run again here
    test_a_container_gets_exactly_the_settings_of_its_process,
    test_a_process_starts_in_production_with_the_settings_of_compose,
    test_compose_names_its_own_hosts_and_lets_others_be_added,
    test_compose_publishes_to_this_machine_only,
    test_compose_runs_every_process,
    test_containers_that_change_their_user_can_be_stopped,
    test_every_container_is_bounded,
    test_every_long_running_container_has_a_health_check,
    test_every_service_in_compose_signs_in_as_itself,
    test_no_tag_floats,
)

DEPLOY = ROOT / "deploy" / "cluster"
BROKERS = ["rabbitmq", "rabbitmq2", "rabbitmq3"]
DATABASES = ["postgres", "postgres2"]


@pytest.fixture(autouse=True)
def both(monkeypatch):
    monkeypatch.setattr(test_documents, "compose", composed.with_cluster)


def test_every_service_has_all_nodes_and_the_writable_database():
    for name, service in composed.with_cluster()["services"].items():
        environment = service.get("environment", {})
        before = composed.alone()["services"].get(name, {}).get("environment", {})
        assert set(environment) >= set(before)
        if "AMQP_URL" in environment:
            urls = [before["AMQP_URL"].replace("@rabbitmq:", f"@{node}:") for node in BROKERS]
            assert environment["AMQP_URL"].split(";") == urls, name
        if "DATABASE_URL" in environment:
            url = make_url(environment["DATABASE_URL"])
            assert url.query["host"].split(",") == DATABASES
            assert url.query["target_session_attrs"] == "read-write"
            more = ("host", "port", "target_session_attrs")
            assert url.difference_update_query(more) == make_url(before["DATABASE_URL"]), name


def test_the_nodes_can_form_a_cluster():
    services = composed.with_cluster()["services"]
    named = re.findall(r"= rabbit@(\w+)$", (DEPLOY / "rabbitmq.conf").read_text(), re.MULTILINE)
    assert named == BROKERS == [services[name]["hostname"] for name in BROKERS]
    # Replicas of a queue are made on the nodes that run when it is declared.
    assert set(services["topology"]["depends_on"]) == set(BROKERS)


def test_each_server_has_its_own_volume_and_existing_files():
    found = composed.with_cluster()
    kept = []
    for name in (*BROKERS, *DATABASES):
        service = found["services"][name]
        for source, target in (volume.split(":")[:2] for volume in service["volumes"]):
            if source.startswith("./"):
                assert (ROOT / source).is_file(), source
            else:
                assert source in found["volumes"]
                kept.append((source, target))
        first = found["services"][BROKERS[0] if name in BROKERS else DATABASES[0]]
        assert {one.split(":")[1] for one in service["volumes"]} <= {
            one.split(":")[1] for one in first["volumes"]
        }
        for setting in ("image", "command", "mem_limit", "entrypoint", "healthcheck", "secrets"):
            assert service.get(setting) == first.get(setting), (name, setting)
        assert "ports" not in service or name == "rabbitmq"
    assert len({source for source, _ in kept}) == len(BROKERS) + len(DATABASES)
    assert len({target for _, target in kept}) == len({"of a broker", "of a database"})


def test_cluster_secrets_reach_only_the_servers():
    found = composed.with_cluster()
    assert set(found["secrets"]) == set(keys.FILES)
    given = {
        secret: [
            name for name, each in found["services"].items() if secret in each.get("secrets", ())
        ]
        for secret in ("erlang_cookie", "standby_password")
    }
    assert given == {"erlang_cookie": BROKERS, "standby_password": DATABASES}


def test_the_erlang_cookie_is_readable_by_its_owner_alone(tmp_path):
    """Erlang refuses a cookie that others may read, and the file of a secret is readable."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "erlang_cookie").write_text("SHARED\n")
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\necho "started $*"\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    for _ in range(2):  # a restart finds the older one
        done = subprocess.run(
            ("sh", DEPLOY / "rabbitmq-node", "rabbitmq-server"),
            env={"PATH": f"{tmp_path}:{os.defpath}", "HOME": str(home),
                 "COOKIE_FILE": str(tmp_path / "erlang_cookie")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "started rabbitmq-server\n"
    assert (home / ".erlang.cookie").read_text() == "SHARED"
    assert (home / ".erlang.cookie").stat().st_mode & 0o077 == 0
