"""Printed blocks of commands end at the first failure, and copy data before deleting it."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from stack.folders import ROOT
from tests.machines.deployment import block, steps
from tests.unit.docs import composed

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
    "backup in compose": (RECOVERY, "### Backing up with docker-compose.yml"),
    "orders lost": (RECOVERY, "## The orders tables are lost"),
    "stopping": (RECOVERY, "## The database is lost"),
    "restoring": (RECOVERY, "### The lost one is set aside"),
    "restoring in compose": (RECOVERY, "### Set aside with docker-compose.yml"),
    "keys": (DEPLOYING, "## Keys"),
    "brokers": (DEPLOYING, "### Three brokers beside data that are there"),
    "a broker": (DEPLOYING, "### A broker whose volume is gone"),
    "upgrading brokers": (DEPLOYING, "### Upgrading the brokers"),
    "second database": (DEPLOYING, "### A second database beside one that is there"),
    "taking over": (DEPLOYING, "### The second database takes over"),
    "following": (DEPLOYING, "### The one that led before"),
    "alone": (DEPLOYING, "### Going on with one database"),
}
VARIABLES = {
    "DATABASE": "postgresql://127.0.0.1/order_fellow",
    "PGHOST": "127.0.0.1",
    "BACKUP": "2026-11-23T14:00:00Z",
}
# Records its arguments; the call number $FAILS fails, with half of its output.
PROGRAM = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
case "$*" in
  (*--file=*.dump.new*) exec > order_fellow.dump.new ;;
  (*"run --rm keys") mkdir secrets ;;
esac
echo new
[ "$(wc -l < "$CALLS")" -ne "$FAILS" ]
"""
DATE = "#!/bin/sh\necho 20261123_140000\n"  # part of names; the second may change meanwhile
PROGRAMS = ("docker", "pg_dump", "pg_restore", "createdb", "dropdb", "psql", "python", "fellow")
GOOD = "the last good one\n"
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


@pytest.fixture
def host(tmp_path):
    """Return a function that runs a printed block in one shell: its result and the recorded calls.

    `again`: keep the folder of the previous run.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    (programs / "date").write_text(DATE)
    (programs / "date").chmod(0o755)
    folder = tmp_path / "host"

    def run(which, fails=0, again=False, **variables):
        if not again:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(ROOT / "deploy", folder / "deploy")
            shutil.copy(ROOT / "docker-compose.yml", folder)
            for name in ("before.dump", "order_fellow.dump"):
                (folder / name).write_text(GOOD)
        calls = tmp_path / "calls"
        calls.write_text("")
        document, heading = PRINTED[which]
        done = subprocess.run(
            # On standard input, from which its commands read too, as on a terminal.
            ("bash",), input=block(document.read_text(), heading), cwd=folder,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls),
                 "FAILS": str(fails)} | VARIABLES | variables,
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
            # The new dump replaces it only after it was read completely.
            read = any("pg_restore" in line for line in told[:-1])
            assert held == GOOD or read, told
        if which == "postgresql" and (host.folder / "before.dump").read_text() == GOOD:
            assert not any(re.search(r"compose (rm|up)", line) for line in told), told
            unchanged = (ROOT / "docker-compose.yml").read_text()
            assert (host.folder / "docker-compose.yml").read_text() == unchanged


def blocks():
    """Return each shell block of the documents, with its page."""
    return [
        (page.name, found)
        for page in PAGES
        for found in re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(), re.M | re.S)
    ]


def test_no_printed_command_deletes_data():
    removes = (
        r"volume rm|down .*(-v|--volumes)|\brm .*(-v\b|--volumes)|\brm -\w*r|prune|dropdb|"
        r"DROP |TRUNCATE|DELETE FROM|rabbitmqctl reset|delete_queue|purge"
    )
    for page, found in blocks():
        assert not re.search(removes, found), (page, found)
    of_tables = [
        (page.name, cell)
        for page in PAGES
        for row in re.findall(r"^\|.*\|$", page.read_text(), re.M)
        for cell in re.findall(r"`((?:docker|psql|fellow|rabbitmq\w*|dropdb) [^`]*)`", row)
    ]
    assert of_tables
    for page, cell in of_tables:
        assert not re.search(removes, cell), (page, cell)
        # Markdown needs a backslash before it, which the shell would take literally.
        assert "|" not in cell, (page, cell)


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.name)
def test_printed_stops_name_their_services(page):
    """Without a name everything stops, the servers too, also if the names come from a command
    that fails."""
    told = re.findall(r"docker compose (?:stop|kill|rm|restart)\b([^`\n&;#]*)", page.read_text())
    for said in told:
        names = [word for word in said.split() if not word.startswith("-")]
        assert names, said
        assert set(names) <= composed.with_cluster()["services"].keys(), said


def test_before_a_restore_each_of_ours_is_stopped_and_no_server(host):
    for which in ("stopping", "postgresql"):
        _, told = host(which)
        (stopped,) = (line.split()[3:] for line in told if line.startswith("docker compose stop"))
        ours = {name for name, each in services().items() if each["image"].startswith("${COMPOSE")}
        assert set(stopped) == {name for name in ours if "profiles" not in services()[name]}


@pytest.mark.parametrize("which", PRINTED)
def test_a_block_without_one_of_its_variables_does_nothing_with_it(host, which):
    """An empty database address means another database."""
    document, heading = PRINTED[which]
    read = set(re.findall(r"\$\{?([A-Z]+)\b", block(document.read_text(), heading)))
    assert read <= VARIABLES.keys()
    for name in read:
        done, told = host(which, **{name: ""})
        assert (done.returncode != 0, told) == (True, []), name


@pytest.mark.parametrize("which", ["restoring", "restoring in compose"])
def test_the_lost_database_keeps_its_name_until_the_dump_is_restored_beside_it(host, which):
    _, told = host(which)
    renames, restored = (
        next(n for n, line in enumerate(told) if re.search(what, line))
        for what in (
            "DATABASE order_fellow_2.* RENAME",
            "pg_restore.*order_fellow_2",
        )
    )
    assert restored < renames
    assert len(re.findall("RENAME", told[renames])) == 2
    assert re.search(" -1 ", told[renames]), "one transaction: else there may be none of the name"


def test_pasting_the_production_block_again_keeps_settings_and_continues(host):
    host("production", fails=3)
    (host.folder / ".env").write_text("SMTP_HOST=smtp.example.com\n")
    done, told = host("production", again=True)
    assert done.returncode == 0
    assert (host.folder / ".env").read_text() == "SMTP_HOST=smtp.example.com\n"
    assert "docker compose run --rm keys" not in told
    assert "docker compose up --detach --wait" in told


def test_the_migrations_with_concurrent_indexes_are_documented():
    versions = (ROOT / "shared" / "db" / "migrations" / "versions").glob("*.py")
    waiting = {
        path.name[:4]
        for path in versions
        if re.search(r"CONCURRENTLY|\bbuild\(", path.read_text()) is not None
    }
    assert "0049" in waiting
    said = DEPLOYING.read_text()
    (sentence,) = re.findall(r"[^.]*\bbuild their indexes concurrently", said)
    assert set(re.findall(r"\b\d{4}\b", sentence)) == waiting


def test_pasting_the_postgresql_block_again_keeps_the_dump(host):
    host("postgresql", fails=8)
    good = "of the old one"
    (host.folder / "before.dump").write_text(good)
    done, told = host("postgresql", again=True)
    assert (done.returncode != 0, told) == (True, [])
    assert (host.folder / "before.dump").read_text() == good


def test_another_postgresql_gets_its_own_volume(host):
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
    """As `make test-compose` does; one line of PostgreSQL's block spans three."""
    document, heading = PRINTED[which]
    lines = steps(document.read_text(), heading)
    assert lines
    for line in lines:
        done = subprocess.run(("sh", "-n", "-c", line), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        assert "(set -e" not in line


# A fake engine with one image per name, and one container, of `secrets`; $ILL is unhealthy.
ENGINE = """#!/bin/sh
name=$(sed -n "s/^COMPOSE_PROJECT_NAME=//p" .env)
case "$*" in
"compose config") printf 'name: %s\\nservices:\\n  ops:\\n    name: other\\n' "$name" ;;
"compose images"*) [ ! -e "running-$name" ] || sed s/sha256:// "running-$name" ;;
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
    """Return a function that runs a printed block in a second checkout, which `.env` names."""
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
    run.removed = lambda name: (tmp_path / name).unlink()
    run.made = lambda name: (tmp_path / name).exists()
    return run


def test_going_back_uses_the_project_of_env(second_checkout):
    assert second_checkout("upgrading")
    assert second_checkout.held("running-shop2") == "new"
    assert second_checkout.held("image-shop2:before") == "old"
    assert second_checkout("back")
    assert second_checkout.held("running-shop2") == "old"
    for name in ("image-order-fellow:latest", "image-order-fellow:before"):
        assert second_checkout.held(name) == "first"


@pytest.mark.parametrize("ill", ["proof", "secrets", "nobody"])
def test_pasting_an_upgrade_again_keeps_the_previous_image(second_checkout, ill):
    assert second_checkout("upgrading", ill) is (ill == "nobody")
    assert second_checkout("upgrading")
    assert second_checkout.held("running-shop2") == "new"
    assert second_checkout.held("image-shop2:before") == "old"


def test_an_upgrade_without_running_containers_keeps_the_previous_image(
    second_checkout,
):
    """After `docker compose down`, or on a new host with the volumes of the old one."""
    second_checkout.removed("running-shop2")
    assert second_checkout("upgrading")
    assert second_checkout.held("running-shop2") == "new"
    assert not second_checkout.made("image-shop2:before")


def names(which):
    """Return the services that each line of a block replaces, in order."""
    document, heading = PRINTED[which]
    return [
        line.partition("#")[0].split("--wait")[1].replace("--no-deps", "").split()
        for line in steps(document.read_text(), heading)
        if "compose up" in line
    ]


def services():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_an_upgrade_lists_each_service_once_and_the_servers_separately():
    stay = {name for name, each in services().items() if "profiles" not in each}
    servers = {name for name in stay if "COMPOSE_PROJECT_NAME" not in services()[name]["image"]}
    assert {"postgres", "rabbitmq", "door"} == servers
    flat = [name for line in names("upgrading") for name in line]
    assert sorted(flat) == sorted(stay - servers)
    # One by one: replacing all together would leave none running.
    assert [len(line) for line in names("servers")] == [1] * len(servers)
    assert {name for line in names("servers") for name in line} == servers


def test_going_back_is_the_reverse_of_the_upgrade():
    assert [set(line) for line in names("back")] == [set(line) for line in names("upgrading")][::-1]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda it: it.name)
def test_printed_steps_replace_no_running_server(document):
    """`run` without `--no-deps` replaces dependencies whose part of the file has changed."""
    depending = [name for name, each in services().items() if "depends_on" in each]
    assert depending
    told = re.findall(
        rf"docker compose run [^`\n&]*\b(?:{'|'.join(depending)})\b", document.read_text()
    )
    assert [line for line in told if "--no-deps" not in line] == []
