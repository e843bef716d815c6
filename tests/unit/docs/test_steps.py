"""Printed steps, pasted whole: what fails ends them, and nothing is taken away before its copy."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from stack.folders import ROOT
from tests.machines.deployment import block, steps

DEPLOYING = ROOT / "docs" / "deploying.md"
RECOVERY = ROOT / "docs" / "recovery.md"
PRINTED = {
    "production": (ROOT / "README.md", "## Production"),
    "upgrading": (DEPLOYING, "## Upgrading"),
    "servers": (DEPLOYING, "### Its servers"),
    "back": (DEPLOYING, "### Going back"),
    "postgresql": (DEPLOYING, "### Another PostgreSQL"),
    "rabbitmq": (DEPLOYING, "### Another RabbitMQ"),
    "backup": (RECOVERY, "## Backing up"),
}
# Writes down what it is told, and prints half of what it is asked for where it is to fail.
PROGRAM = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
case "$*" in (*--file=*.dump.new*) exec > order_fellow.dump.new ;; esac
echo new
[ "$(wc -l < "$CALLS")" -ne "$FAILS" ]
"""
GOOD = "the last good one\n"


@pytest.fixture
def host(tmp_path):
    """Runs a printed block in a folder, by one shell; answers its end and what it told whom."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("docker", "pg_dump", "pg_restore"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    folder = tmp_path / "host"

    def run(which, fails=0):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        shutil.copy(ROOT / "docker-compose.yml", folder)
        for name in ("before.dump", "order_fellow.dump"):
            (folder / name).write_text(GOOD)
        calls = tmp_path / "calls"
        calls.write_text("")
        document, heading = PRINTED[which]
        done = subprocess.run(
            # Its lines come from where its commands read as well, as from a terminal.
            ("bash",), input=block(document.read_text(), heading), cwd=folder,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls),
                 "FAILS": str(fails), "DATABASE": "postgresql://127.0.0.1/order_fellow"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done, calls.read_text().splitlines()

    run.folder = folder
    return run


@pytest.mark.parametrize("which", PRINTED)
def test_a_block_ends_where_one_of_its_lines_fails(host, which):
    done, all_of_them = host(which)
    assert done.returncode == 0, done.stderr
    assert all_of_them
    for number in range(1, len(all_of_them) + 1):
        done, told = host(which, fails=number)
        assert told == all_of_them[:number]
        assert done.returncode != 0
        for name in ("before.dump", "order_fellow.dump"):
            held = (host.folder / name).read_text()
            # The new one is there once it was written and read whole.
            read = any("pg_restore" in line for line in told[:-1])
            assert held == GOOD or read, told
        if which == "postgresql" and (host.folder / "before.dump").read_text() == GOOD:
            assert not any(re.search(r"compose (rm|up)", line) for line in told), told
            unchanged = (ROOT / "docker-compose.yml").read_text()
            assert (host.folder / "docker-compose.yml").read_text() == unchanged


def test_nothing_that_is_printed_to_be_run_removes_a_volume(host):
    for which in PRINTED:
        _, told = host(which)
        assert not any(
            re.search(r"volume rm|down .*(-v|--volumes)|rm .*(-v\b|--volumes)", line)
            for line in told
        )


def test_another_postgresql_has_a_volume_of_its_own(host):
    host("postgresql")
    assert (host.folder / "before.dump").read_text() != GOOD
    assert (host.folder / "before.dump").stat().st_mode & 0o077 == 0, "persons are in it"
    before = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    after = yaml.safe_load((host.folder / "docker-compose.yml").read_text())
    changed = after["services"]["postgres"]
    assert changed["image"].startswith("postgres:18.")
    assert changed["volumes"] == ["postgres:/var/lib/postgresql"]
    assert after["volumes"]["postgres"]["name"].endswith("_postgres18")
    for key in ("image", "volumes"):
        changed[key] = before["services"]["postgres"][key]
    after["volumes"]["postgres"] = before["volumes"]["postgres"]
    assert after == before


@pytest.mark.parametrize("which", [name for name in PRINTED if name != "postgresql"])
def test_each_step_of_a_block_can_be_run_by_itself(which):
    """As `make test-compose` does; of PostgreSQL's one line is three."""
    document, heading = PRINTED[which]
    for line in steps(document.read_text(), heading):
        done = subprocess.run(("sh", "-n", "-c", line), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        assert "(set -e" not in line


# An engine with one image of each name, and one container, of `secrets`; $ILL is not healthy.
ENGINE = """#!/bin/sh
name=$(sed -n "s/^COMPOSE_PROJECT_NAME=//p" .env)
case "$*" in
"compose config") printf 'name: %s\\nservices:\\n  ops:\\n    name: other\\n' "$name" ;;
"compose images"*) sed s/sha256:// "running-$name" ;;
"compose build") echo "sha256:$VERSION" > "image-$name:latest" ;;
"compose up"*)
  case "$*" in (*" secrets"*) cp "image-$name:latest" "running-$name" ;; esac
  case "$*" in (*" $ILL"*) exit 1 ;; esac ;;
"image inspect"*) for last; do :; done; cat "image-$last" ;;
"tag "*)
  if [ -e "image-$2" ]; then cp "image-$2" "image-$3"; else echo "sha256:$2" > "image-$3"; fi ;;
esac
"""


@pytest.fixture
def second_checkout(tmp_path):
    """One whose `.env` alone names it, beside a first one; runs a printed block there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(ENGINE)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=shop2\n")
    for name in ("image-order-fellow:latest", "image-order-fellow:before"):
        (tmp_path / name).write_text("sha256:first\n")
    for name in ("image-shop2:latest", "running-shop2"):
        (tmp_path / name).write_text("sha256:old\n")

    def run(which, ill="nobody"):
        document, heading = PRINTED[which]
        done = subprocess.run(
            ("bash",), input=block(document.read_text(), heading), cwd=tmp_path,
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VERSION": "new", "ILL": ill},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def held(name):
        return (tmp_path / name).read_text().strip().removeprefix("sha256:")

    run.held = held
    return run


def test_the_way_back_is_of_the_project_that_env_names(second_checkout):
    assert second_checkout("upgrading")
    assert second_checkout.held("running-shop2") == "new"
    assert second_checkout.held("image-shop2:before") == "old"
    assert second_checkout("back")
    assert second_checkout.held("running-shop2") == "old"
    for name in ("image-order-fellow:latest", "image-order-fellow:before"):
        assert second_checkout.held(name) == "first"


@pytest.mark.parametrize("ill", ["proof", "secrets", "nobody"])
def test_an_upgrade_that_is_pasted_again_keeps_its_way_back(second_checkout, ill):
    assert second_checkout("upgrading", ill) is (ill == "nobody")
    assert second_checkout("upgrading")
    assert second_checkout.held("running-shop2") == "new"
    assert second_checkout.held("image-shop2:before") == "old"


def names(which):
    """What the lines of a block replace, in their order."""
    document, heading = PRINTED[which]
    return [
        line.partition("#")[0].split("--wait")[1].replace("--no-deps", "").split()
        for line in steps(document.read_text(), heading)
        if "compose up" in line
    ]


def services():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_an_upgrade_names_each_service_of_ours_once_and_the_servers_apart():
    stay = {name for name, each in services().items() if "profiles" not in each}
    servers = {name for name in stay if "COMPOSE_PROJECT_NAME" not in services()[name]["image"]}
    assert {"postgres", "rabbitmq", "door"} == servers
    flat = [name for line in names("upgrading") for name in line]
    assert sorted(flat) == sorted(stay - servers)
    # One by one: all at once nobody is there.
    assert [len(line) for line in names("servers")] == [1] * len(servers)
    assert {name for line in names("servers") for name in line} == servers


def test_the_way_back_is_the_way_there_turned_round():
    assert [set(line) for line in names("back")] == [set(line) for line in names("upgrading")][::-1]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda it: it.name)
def test_a_step_beside_a_running_system_replaces_no_server(document):
    """`run` replaces what a service depends on, where its part of the file has changed."""
    depending = [name for name, each in services().items() if "depends_on" in each]
    assert depending
    told = re.findall(
        rf"docker compose run [^`\n&]*\b(?:{'|'.join(depending)})\b", document.read_text()
    )
    assert [line for line in told if "--no-deps" not in line] == []
