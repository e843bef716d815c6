"""Images of docker-compose.yml that cannot be pulled here, made of Debian's packages.

Under tags of their own, which tests put in the place of the official ones: under those they would
serve in production on this engine, with this machine's /etc/pip.conf in them. They honour what
docker-compose.yml and stack/servers/containers.py say to the official ones, and no more.
"""

import contextlib
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import BuildError, DockerException, ImageNotFound
from docker.types import Mount

from tests.machines import images


@dataclass(frozen=True)
class StandIn:
    """How an image is made.

    Attributes:
        suite: the machine that its packages come from; one of `images.SUITES`.
        packages: of the distribution.
        lines: of the Dockerfile, behind the packages.
        entrypoint: a shell script, when there is one.
    """

    suite: str
    packages: str
    lines: str
    entrypoint: str = ""


_RABBITMQ = """#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    if [ -n "$RABBITMQ_DEFAULT_USER" ]; then
        mkdir -p /etc/rabbitmq/conf.d
        printf 'default_user = %s\\ndefault_pass = %s\\n' "$RABBITMQ_DEFAULT_USER" \\
            "$RABBITMQ_DEFAULT_PASS" > /etc/rabbitmq/conf.d/10-defaults.conf
    fi
    chown rabbitmq: /var/lib/rabbitmq
    exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups "$0" "$@"
fi
export HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
exec /usr/lib/rabbitmq/bin/rabbitmq-server
"""
_POSTGRES = """#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" && chown postgres: "$PGDATA" && chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
: "${POSTGRES_USER:=postgres}" "${POSTGRES_PASSWORD_FILE:=/tmp/password}"
[ -z "$POSTGRES_PASSWORD" ] || printf %s "$POSTGRES_PASSWORD" > "$POSTGRES_PASSWORD_FILE"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --encoding UTF8 --locale C.UTF-8 --username "$POSTGRES_USER" \\
        --pwfile "$POSTGRES_PASSWORD_FILE" --auth-local trust --auth-host scram-sha-256 "$PGDATA"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses= -k /var/run/postgresql" -w start
    createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB"
    sleep 10
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
shift
exec postgres -D "$PGDATA" -k /var/run/postgresql -c listen_addresses='*' "$@"
"""
_MAILPIT = """#!/usr/bin/python3
# SMTP on 1025; on 8025 what of Mailpit's API the tests ask for.
import asyncio, email, email.policy, json, http.server, threading

letters, lock = [], threading.Lock()

async def talk(reader, writer):
    async def say(line):
        writer.write(line + b"\\r\\n")
        await writer.drain()
    await say(b"220 mail")
    while line := await reader.readline():
        word = line[:4].upper().strip()
        if word == b"DATA":
            await say(b"354 go on")
            body = b""
            while not (line := await reader.readline()) in (b".\\r\\n", b""):
                body += line
            if line:
                with lock:
                    letters.append(body)
                await say(b"250 kept")
        elif word == b"QUIT":
            await say(b"221 bye")
            break
        else:
            await say(b"250 mail" if word in (b"EHLO", b"HELO") else b"250 fine")
    writer.close()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            if self.path == "/view/latest.txt":
                letter = email.message_from_bytes(letters[-1], policy=email.policy.default)
                found = letter.get_body(("plain",)).get_content().encode()
            else:
                found = json.dumps({"total": len(letters)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(found)
    def log_message(self, *_):
        pass

threading.Thread(
    target=http.server.ThreadingHTTPServer(("", 8025), Page).serve_forever, daemon=True
).start()

async def main():
    server = await asyncio.start_server(talk, "", 1025, backlog=100)
    await server.serve_forever()

asyncio.run(main())
"""


def _rabbitmq(suite: str) -> StandIn:
    return StandIn(
        suite,
        "rabbitmq-server",
        "RUN rabbitmq-plugins enable --offline rabbitmq_management rabbitmq_prometheus"
        " && chown -R rabbitmq: /etc/rabbitmq /var/log/rabbitmq\n"
        "VOLUME /var/lib/rabbitmq\n",
        _RABBITMQ,
    )


REPOSITORY = "order-fellow-standin"
# By the repository and the version's beginning.
STAND_INS = {
    "rabbitmq:4.0": _rabbitmq("13"),
    "rabbitmq:4.3": _rabbitmq("sid"),
    "postgres:17": StandIn(
        "13",
        "postgresql-17",
        "ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/17/bin:$PATH\n"
        "STOPSIGNAL SIGINT\n",
        _POSTGRES,
    ),
    "haproxy:3.0": StandIn(
        "13",
        "haproxy",
        'USER haproxy\nSTOPSIGNAL SIGUSR1\nCMD ["haproxy", "-W", "-db", "-f",'
        ' "/usr/local/etc/haproxy/haproxy.cfg"]\n',
    ),
    "axllent/mailpit:": StandIn("13", "python3", "", _MAILPIT),
    "python:3.13": StandIn(
        "13", "python3-venv python3-pip", "RUN ln -s /usr/bin/python3 /usr/local/bin/python\n"
    ),
}


def ensure(name: str) -> str:
    """Have an image in the engine: there already, pulled, or made of Debian's packages.

    Args:
        name: as docker-compose.yml or the Dockerfile names it.

    Returns:
        What to call it: `name`, or the stand-in's own.

    Raises:
        EngineError: none of the three can be.
    """
    with contextlib.closing(images.engine()) as client:
        with contextlib.suppress(ImageNotFound):
            client.images.get(name)
            return name
        with contextlib.suppress(DockerException):
            client.images.pull(name)
            return name
        own = f"{REPOSITORY}/{name}"
        with contextlib.suppress(ImageNotFound):
            client.images.get(own)
            return own
        found = next((made for start, made in STAND_INS.items() if name.startswith(start)), None)
        if found is None:
            raise images.EngineError(
                f"{name} cannot be pulled, and nothing in tests/machines/standins.py says what of "
                "Debian's packages stands in for it."
            )
        print(f"Making {own} of Debian's packages", flush=True)
        _make(client, own, found, has_reach=name.startswith("python:"))
        return own


def _make(
    client: docker.DockerClient, name: str, stand_in: StandIn, *, has_reach: bool = False
) -> None:
    script = (
        "set -e; printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; "
        "chmod 755 /usr/sbin/policy-rc.d; apt-get update -q; DEBIAN_FRONTEND=noninteractive "
        f"apt-get install -qy --no-install-recommends {stand_in.packages}; "
        "rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*/main /var/lib/rabbitmq/*"
    )
    made = client.containers.create(
        images.base(stand_in.suite), ["sh", "-c", script], mounts=[
            # `volumes` would become the image's, and a build cannot write over those.
            Mount(volume["bind"], here, type="bind", read_only=True)
            for here, volume in images.reach().items()
        ],
        network_mode="host",
    )  # fmt: skip
    try:
        made.start()
        if made.wait()["StatusCode"] != 0:
            raise images.EngineError(f"apt-get failed for {name}: {made.logs()[-2000:].decode()}")
        packed = made.commit(f"{images.REPOSITORY}-packages", re.sub(r"\W", "-", name))
    finally:
        made.remove(force=True, v=True)
    lines = f"FROM {packed.id}\n{stand_in.lines}"
    files = {}
    if stand_in.entrypoint:
        files["entry"] = stand_in.entrypoint
        lines += 'COPY entry /entry\nENTRYPOINT ["/entry"]\nCMD ["-"]\n'
    if has_reach:
        # A build has no volumes: what pip needs on this machine is in the stand-in, so that the
        # Dockerfile needs none of it.
        for number, (here, volume) in enumerate(images.reach().items()):
            files[f"reach{number}"] = Path(here).read_text()
            lines += f"COPY reach{number} {volume['bind']}\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in {"Dockerfile": lines, **files}.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text.encode()), 0o755
            archive.addfile(info, io.BytesIO(text.encode()))
    context.seek(0)
    try:
        client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)
    except BuildError as error:
        raise images.EngineError(f"{name}: {error}") from error
