"""`make test-compose`: docker-compose.yml on an engine, by the steps that the README prints.

Signed orders go through the door all the while that containers are killed, replaced, doubled and
given new passwords; at the end accepted, recorded and mailed are compared. It runs on a copy of
this checkout under a project name of its own, on free ports, and takes away what it made.

`make test-compose COMPOSE_FROM=<commit>`: an older version runs, and is upgraded (upgrade.py).
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docker.models.containers import Container

from shared import lease
from shared.product import VERSION
from stack.folders import hold_venv
from stack.processes import stop_on_signals
from tests.machines import images, standins, upgrade
from tests.machines.deployment import (
    FILES_OPEN,
    OURS,
    ROOT,
    Deployment,
    eventually,
    steps,
    take_away,
)
from tests.machines.load import Load

OLD_BROKER = "rabbitmq:4.0.5-management"
# The mailbox is not among them: it keeps its letters in memory.
KILLED = (
    "ingress", "orders", "kyc", "secrets", "notifier", "audit", "relay", "ops", "rabbitmq",
    "postgres", "door",
)  # fmt: skip
PREFIX = "order-fellow-compose-"
UP = "docker compose up --detach --wait"
SERVERS = "docker compose ps --quiet postgres rabbitmq door"
CHECKS = 10  # of a container's health, to learn what one costs
DEAR = 4  # times a start of Python; Erlang costs many more
# Its children's processor time is the last line of what `times` prints.
COST = 'i=0; while [ $i -lt "$0" ]; do "$@" > /dev/null || exit 1; i=$((i + 1)); done; times'
FAILING = """revision = "9999"
down_revision = "{}"


def upgrade() -> None:
    raise RuntimeError("this migration fails on purpose")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; returns the exit code: 2 where there is no engine."""
    parser = argparse.ArgumentParser(prog="make test-compose", description=__doc__)
    parser.add_argument("--from", dest="commit", default="", help="the version to upgrade")
    commit = parser.parse_args(arguments).commit
    stop_on_signals()
    hold_venv()
    text = (ROOT / "docker-compose.yml").read_text()
    try:
        taken = _prepare(text)
    except images.EngineError as error:
        print(error, file=sys.stderr)
        return 2
    # Of one that was killed the containers would come back with each start of the engine.
    lease.remove_abandoned(Path(tempfile.gettempdir()), PREFIX, remove=take_away)
    folder, held = lease.make(Path(tempfile.gettempdir()), PREFIX)
    try:
        deployment = Deployment(folder, commit, taken)
        try:
            if commit:
                upgrade.play(deployment, commit)
            else:
                new_broker = re.findall(r"image: (rabbitmq\S+)", text)[0]
                _play(deployment, taken[new_broker], taken[OLD_BROKER])
        except BaseException:
            print(deployment.shell("docker compose ps -a; docker compose logs --tail 15"))
            raise
    finally:
        take_away(folder)
        os.close(held)
    return 0


def _prepare(text: str) -> dict[str, str]:
    """Have the images; returns what to take for each that a file names."""
    images.engine().close()
    version = ("docker", "compose", "version")
    if subprocess.run(version, capture_output=True, check=False).returncode != 0:
        raise images.EngineError("`docker compose` is not here: install its plugin.")
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {*re.findall(r"image: (\S+)", text), *bases, OLD_BROKER} - {OURS}
    return {name: standins.ensure(name) for name in names}


def _play(deployment: Deployment, new_broker: str, old_broker: str) -> None:
    said = deployment.shell("docker compose run --rm keys", fails=True)
    # Which of them compose names first is chance.
    assert re.search("put (SMTP_HOST|PUBLIC_URL) into .env", said), said
    # On the old broker first: its volume is what the new one gets.
    deployment.replace(new_broker, old_broker)
    for line in steps((ROOT / "README.md").read_text(), "## Production"):
        deployment.shell(line)
    assert "is there already" in deployment.shell("docker compose run --rm keys", fails=True)
    for path in ("/metrics", "/readyz", "/healthz", "//metrics", "/api/../metrics"):
        assert deployment.ask(path)[0] == 404, path
    load = Load(deployment, deployment.secret())
    before = deployment.letters()
    try:
        _disturb(deployment, load, new_broker, old_broker)
    finally:
        load.stop()
    accepted = load.answers[201]
    eventually(lambda: deployment.letters() - before >= accepted)
    recorded, mailed = deployment.count(), deployment.letters() - before
    print(
        f"answers {dict(load.answers)}; accepted {accepted}, recorded {recorded}, mailed {mailed}"
    )
    assert accepted == recorded, "an order is missing, or there twice"
    assert mailed >= recorded


def _disturb(deployment: Deployment, load: Load, new_broker: str, old_broker: str) -> None:
    documented = (ROOT / "docs" / "deploying.md").read_text()
    eventually(lambda: load.answers[201] >= 20)
    _look(deployment)
    _upgrade(deployment, load, documented)
    _kill(deployment)
    _stop_the_servers(deployment)
    _down_and_up(deployment)
    _change_passwords(deployment, documented)
    _move_the_broker(deployment, documented, new_broker, old_broker)
    done = load.answers[201]
    eventually(lambda: load.answers[201] >= done + 50)


def _look(deployment: Deployment) -> None:
    said = deployment.shell("docker compose exec ops fellow --version")
    assert f"fellow {VERSION}" in said, said
    said = deployment.shell("docker compose exec ops fellow secrets list it@kettle.example")
    assert re.search(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", said), said
    costs, rates, files = {}, {}, {}
    with contextlib.closing(images.engine()) as client:
        own = {"label": f"com.docker.compose.project={deployment.name}"}
        for container in client.containers.list(filters=own):
            files[container.name] = container.exec_run(["sh", "-c", "ulimit -n"]).output.strip()
            if check := container.attrs["Config"].get("Healthcheck"):
                spent = _cost(container, check["Test"][1:])
                costs[container.name] = spent
                rates[container.name] = spent / (check["Interval"] / 1e9)
            if "ops" in container.name:
                interpreter = _cost(container, ["python", "-S", "-c", ""])
    assert set(files.values()) == {str(FILES_OPEN).encode()}, files
    print(f"health checks: {sum(rates.values()):.2%} of a core, {rates}")
    # Against what a start of Python costs at this moment: the machine may have much else to do.
    dear = {name: cost for name, cost in costs.items() if cost > DEAR * interpreter}
    assert not dear, f"a start of Python costs {interpreter:.3f} s, and these checks: {dear}"


def _cost(container: Container, command: Sequence[str]) -> float:
    """The processor seconds of a command in a container."""
    code, printed = container.exec_run(["sh", "-c", COST, str(CHECKS), *command])
    assert code == 0, (container.name, printed)
    spent = re.findall(r"(\d+)m([\d.]+)s", printed.decode().splitlines()[-1])
    return sum(int(minutes) * 60 + float(rest) for minutes, rest in spent) / CHECKS


def _upgrade(deployment: Deployment, load: Load, documented: str) -> None:
    lines = steps(documented, "## Upgrading")
    migrate = next(line for line in lines if line.endswith("migrations"))
    before_it = lines[: lines.index(migrate)]
    back = steps(documented, "### Going back")
    versions = deployment.folder / "shared/db/migrations/versions"
    last = max(file.name[:4] for file in versions.glob("[0-9]*.py"))
    failing = versions / "9999_fails.py"
    failing.write_text(FAILING.format(last))
    running = deployment.shell("docker compose ps --quiet")
    before = load.answers.copy()
    for line in before_it:
        deployment.shell(line)
    said = deployment.shell(migrate, fails=True)
    assert "this migration fails on purpose" in said, said
    eventually(lambda: load.answers[201] >= before[201] + 20)
    assert deployment.shell("docker compose ps --quiet") == running, "a container was replaced"
    failing.unlink()
    (deployment.folder / "shared/newer").touch()  # else the image would be the one that runs
    # What the file says of the servers changes too: the steps leave them, and the way back does.
    deployment.replace("retries: 12", "retries: 13")
    deployment.replace("mem_limit: 384m", "mem_limit: 385m")
    servers = deployment.shell(SERVERS)
    for line in (*lines, *back, *lines):
        deployment.shell(line)
    assert deployment.shell("docker compose ps --quiet") != running, "none was replaced"
    assert deployment.shell(SERVERS) == servers, "the upgrade replaced a server"
    eventually(lambda: load.answers[201] >= before[201] + 40)
    assert load.answers[0] == before[0], "a connection was refused during an upgrade"
    assert load.answers[503] == before[503], "an order was refused during an upgrade"
    for line in steps(documented, "### Its servers"):
        deployment.shell(line)
    assert not set(servers.split()) & set(deployment.shell(SERVERS).split()), "one is the older"


def _kill(deployment: Deployment) -> None:
    with (deployment.folder / ".env").open("a") as settings:
        settings.write("INGRESSES=2\n")
    deployment.shell(f"{UP} relay")
    deployment.shell(UP)
    assert len(deployment.shell("docker compose ps --quiet ingress").split()) == 2
    for name in KILLED:
        deployment.shell(f"docker compose kill {name}")
        deployment.shell(UP)


def _stop_the_servers(deployment: Deployment) -> None:
    names = {"postgres", "rabbitmq"}
    deployment.shell("docker compose stop postgres rabbitmq")
    for name in names:
        container = f"$(docker compose ps --all --quiet {name})"
        code = deployment.shell(f"docker inspect -f '{{{{.State.ExitCode}}}}' {container}").strip()
        assert code == "0", f"{name} was killed, and not asked to stop: {code}"
    said = deployment.shell("docker compose logs --tail 20 postgres")
    assert "database system is shut down" in said, said
    deployment.shell("docker compose exec ops fellow doctor", fails=True)
    running = deployment.shell("docker compose ps --status running --services").split()
    assert not names & set(running), "looking at a stopped system started it"
    deployment.shell(f"{UP} postgres rabbitmq")
    # Who was asked while they were away is unhealthy until it is asked again, and ends a wait.
    eventually(lambda: deployment.is_up(UP))


def _down_and_up(deployment: Deployment) -> None:
    deployment.shell("docker compose stop notifier")
    deployment.keep_letters()
    deployment.shell("docker compose down")
    deployment.shell(UP)


def _change_passwords(deployment: Deployment, documented: str) -> None:
    for name in ("ingress", "rabbitmq", "postgres"):
        deployment.shell(f"docker compose run --rm keys change {name}")
        row = re.search(rf"^\|[^|]*`{name}`[^|]*\| `([^`]+)`", documented, re.MULTILINE)
        assert row is not None, name
        deployment.shell(row[1])
    # As both administrators.
    deployment.shell(
        "docker compose run --rm --no-deps migrations && docker compose run --rm --no-deps topology"
    )


def _move_the_broker(
    deployment: Deployment, documented: str, new_broker: str, old_broker: str
) -> None:
    for line in steps(documented, "### Another RabbitMQ"):
        deployment.shell(line)
    deployment.replace(old_broker, new_broker)
    deployment.shell(f"{UP} --no-deps rabbitmq")
    deployment.shell("docker compose run --rm --no-deps topology")
    deployment.shell(UP)


if __name__ == "__main__":
    sys.exit(main())
