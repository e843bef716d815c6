"""A deployment of docker-compose.yml for tests: a copy of the checkout, and its orders."""

import hashlib
import hmac
import io
import json
import os
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.http import direct
from stack.servers.ports import Port
from tests import environment
from tests.machines import images

ROOT = images.ROOT
FILES = ("Dockerfile", ".dockerignore", "docker-compose.yml", "requirements.lock")
FOLDERS = ("deploy", "docs", "examples", "services", "shared")
OURS = "${COMPOSE_PROJECT_NAME:-order-fellow}:latest"
OLD = "image: order-fellow:latest"  # until 0040
PORTS = ("PORT", "OPS_PORT", "PORTAL_PORT", "RABBITMQ_UI_PORT", "MAILPIT_PORT")
DEADLINE = 180.0
_MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
FILES_OPEN = 65536 if _MOST == resource.RLIM_INFINITY else min(65536, _MOST)


class Deployment:
    """A copy of the checkout, or of one of its commits, as a project of compose.

    Args:
        folder: where the copy goes.
        commit: which; the working tree when it is empty.
        taken: what to take for each image that a file names.
    """

    def __init__(
        self, folder: Path, commit: str = "", taken: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._taken = taken or {}
        self._kept = 0  # letters of mailboxes that are gone
        # Held, as beside any server of ours, while none of its containers is there.
        self.ports = {name: Port() for name in PORTS}
        self.name = project(folder)
        self.image = f"{self.name}:latest"
        if commit:
            with tempfile.TemporaryDirectory() as old:
                _extract(commit, Path(old))
                self.take(Path(old))
        else:
            self.take(ROOT)

    def take(self, source: Path) -> None:
        """Have the version of another checkout, as `git checkout` would put it here."""
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, self.folder / name, ignore=ignored)
        for file in FILES:
            shutil.copy(source / file, self.folder / file)
        # The package index is reached as this machine reaches it.
        self.replace("build: .", "build: {context: ., network: host}")
        # This machine may have much else to do: what is slow here is not ill.
        file = self.folder / "docker-compose.yml"
        patient = re.sub(r"\b(start_period|timeout): \d+s", r"\1: 300s", file.read_text())
        # Who may not raise his limits (a container without SYS_RESOURCE) gives what he has.
        limited = patient.replace("nofile: 65536", f"nofile: {FILES_OPEN}")
        file.write_text(limited.replace(OLD, f"image: {self.image}"))
        for name, own in self._taken.items():
            for file in (self.folder / "docker-compose.yml", self.folder / "Dockerfile"):
                # Whole names: one may begin as another does.
                named = rf"^( *image: |FROM ){re.escape(name)}(?=\s|$)"
                text = re.sub(named, rf"\g<1>{own}", file.read_text(), flags=re.MULTILINE)
                file.write_text(text)

    def replace(self, old: str, new: str) -> None:
        """Change docker-compose.yml of the copy."""
        file = self.folder / "docker-compose.yml"
        text = file.read_text()
        if old not in text:
            raise AssertionError(f"docker-compose.yml has no {old}")
        file.write_text(text.replace(old, new))

    def shell(self, command: str, *, fails: bool = False) -> str:
        """Run a line as it is printed; returns what it said.

        Raises:
            AssertionError: it failed, or did not when it should.
        """
        print(f"$ {command}", flush=True)
        environ = _environment(self.name) | {"BUILDKIT_PROGRESS": "plain"}
        # A build here reaches the package index as the engine's host does.
        if "compose build" in command:
            environ["DOCKER_BUILDKIT"] = "0"
        environ |= {name: str(port) for name, port in self.ports.items()}
        done = subprocess.run(
            command.replace("compose exec ", "compose exec -T "),
            shell=True, cwd=self.folder, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        if (done.returncode != 0) is not fails:
            raise AssertionError(f"{command}\nended with {done.returncode}:\n{said[-3000:]}")
        return said

    def is_up(self, command: str) -> bool:
        """Whether a line that waits for health ends well."""
        try:
            self.shell(command)
        except AssertionError:
            return False
        return True

    def query(self, query: str) -> str:
        """What the database answers, as psql prints it."""
        return self.shell(
            f'docker compose exec postgres psql -U fellow -d order_fellow -Atc "{query}"'
        ).strip()

    def count(self) -> int:
        """Orders in the database."""
        return int(self.query("SELECT count(*) FROM orders"))

    def letters(self) -> int:
        """Emails that reached a mailbox."""
        return self._kept + int(json.loads(self.mailbox("/api/v1/messages?limit=1"))["total"])

    def keep_letters(self) -> None:
        """Count those of the mailbox, which is about to go, from now on."""
        self._kept = self.letters()

    def mailbox(self, path: str) -> bytes:
        """A page of the mailbox."""
        address = f"http://127.0.0.1:{self.ports['MAILPIT_PORT']}{path}"
        with direct.ask(address, seconds=10) as answer:
            return bytes(answer.read())

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """A request through the door; the code 0 when the connection broke."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['PORT']}{path}",
            data=None if body is None else body if isinstance(body, bytes) else _json(body),
            headers={"Content-Type": "application/json"} | headers,
        )
        try:
            with direct.ask(request, seconds=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except (OSError, ValueError):
            return 0, None

    def order(self, secret: str, order: Any, key: str) -> int:
        """Send an order as its business does, under an idempotency key; returns the code."""
        body = _json(order)
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-API-Key": secret, "X-Webhook-Signature": signature, "Idempotency-Key": key}
        return self.ask("/api/v1/webhooks/orders/", body, **headers)[0]

    def secret(self) -> str:
        """A new sender, from registration to its secret."""
        email, password = "it@kettle.example", "correct horse battery"
        account = {"company_name": "Kettle & Co", "email": email, "password": password}
        self.ok("/api/v1/users/auth/register/", account)
        code = eventually(lambda: re.findall(rb"\b\d{6}\b", self.mailbox("/view/latest.txt")))[0]
        self.ok("/api/v1/users/verify-otp/", {"email": email, "otp": code.decode()})
        signed_in = self.ok("/api/v1/users/auth/login/", {"email": email, "password": password})
        bearer = {"Authorization": f"Bearer {signed_in['access']}"}
        application = {
            "business_registration_number": "RC-1001",
            "business_address": "1 Broad St",
            "contact_person_details": "Ada",
        }
        self.ok("/api/v1/kyc/", application, **bearer)
        password = self.shell("docker compose run --rm keys operator ada").split()[0]
        self.shell("docker compose run --rm --no-deps topology")
        self.shell(
            # The version before does not ask.
            f"echo y | docker compose exec -T -e FELLOW_PASSWORD={password} ops "
            f"fellow kyc approve {email} --as ada"
        )

        def look() -> str:
            code, body = self.ask("/api/v1/webhook/secret/", **bearer)
            return str(body["secret_key"]) if code == 200 else ""

        return eventually(look)

    def ok(self, path: str, body: Any, **headers: str) -> Any:
        """A request that must be answered well."""
        code, answer = self.ask(path, body, **headers)
        assert 200 <= code < 300, (path, code, answer)
        return answer


def project(folder: Path) -> str:
    """What compose calls the deployment in a folder."""
    return f"fellow-{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"


def take_away(folder: Path) -> None:
    """Remove a deployment's containers, volumes and images, and its folder."""
    name = project(folder)
    down = ("docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans")
    # What the file asks for, also where the copy got no `.env`.
    environ = _environment(name) | {"SMTP_HOST": "x", "PUBLIC_URL": "https://x.example"}
    if (folder / "docker-compose.yml").exists():
        subprocess.run(down, cwd=folder, env=environ, check=True)
        images_of_it = (f"{name}:latest", f"{name}:before")
        removal = ("docker", "image", "rm", "--force", *images_of_it)
        subprocess.run(removal, env=environ, check=True)
    shutil.rmtree(folder)


def _environment(name: str) -> dict[str, str]:
    """A shell's variable comes before `.env`, and COMPOSE_FILE names a deployment of somebody's."""
    return environment.kept(os.environ) | {"COMPOSE_PROJECT_NAME": name}


def block(text: str, heading: str) -> str:
    """The first block of shell under a heading of a document, as it is pasted."""
    return text[text.index(f"\n{heading}\n") :].split("```sh\n")[1].split("```")[0]


def steps(text: str, heading: str) -> list[str]:
    """The lines of that block, each to be run by a shell of its own.

    What ends the block at the first that fails is left out, and what sets a variable stands before
    every line that reads it.
    """
    found: list[str] = []
    setting: dict[str, str] = {}

    def with_variables(line: str) -> str:
        read = [said for name, said in setting.items() if re.search(rf"\$\{{?{name}\b", line)]
        return "\n".join(("set -e", *read, line)) if read else line

    for line in block(text, heading).strip().splitlines():
        if set_ := re.match(r"(\w+)=\$\(.*\)$", line):
            setting[set_[1]] = with_variables(line)
        elif not re.match(r"\(set -e\b|\)$", line):
            found.append(with_variables(line))
    return found


def eventually(look: Any) -> Any:
    """What `look` finds, once it finds something.

    Raises:
        AssertionError: it did not.
    """
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"{look} found nothing within {DEADLINE:.0f} s")


def _extract(commit: str, folder: Path) -> None:
    packed = subprocess.run(
        ("git", "archive", commit, *FILES, *FOLDERS), cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
