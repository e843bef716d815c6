"""Images of bare machines: what the distribution installs first, python3, git, make, nothing else.

From the official image where a registry has it, else made by mmdebstrap from the distribution's
packages. `docker image rm order-fellow-machine:13` has that one made anew.
"""

import contextlib
import fcntl
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from stack.folders import ROOT
from stack.servers import debian

FOLDER = ROOT / ".stack" / "matrix"
REPOSITORY = "order-fellow-machine"
BARE = ("python3", "git", "make", "ca-certificates")
# How this machine reaches its package mirror. One that is behind has Release files that are over
# (Check-Valid-Until), those of sid first.
APT = re.compile(r"^Acquire::(?:Check-\S+|https?::\S+|Retries|ForceIPv[46]) \"[^\"]+\";$", re.M)
# Where distributions keep the certificates that they trust, and where Debian does.
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
DEBIANS_BUNDLE = BUNDLES[0]


@dataclass(frozen=True)
class Distribution:
    """What a machine can be made of.

    Attributes:
        name: of its official image.
        codename: of the release; a tag of that image.
        components: of its archive, separated by commas.
    """

    name: str
    codename: str
    components: str = "main"


SUITES = {
    "12": Distribution("debian", "bookworm"),
    "13": Distribution("debian", "trixie"),
    "sid": Distribution("debian", "sid"),
    "24.04": Distribution("ubuntu", "noble", "main,universe"),
}


class EngineError(Exception):
    """A machine cannot be had here; the message says what would help."""


def engine() -> docker.DockerClient:
    """The Docker engine that `docker` talks to, by DOCKER_HOST or a context.

    Raises:
        EngineError: none answers.
    """
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        raise EngineError(
            "No Docker engine answers, and this runs in containers alone. Start one, or name one "
            "that runs, in DOCKER_HOST or by `docker context use`."
        ) from error
    return client


def base(suite: str) -> str:
    """A bare machine, as a tag in the engine; made when it is not there.

    Args:
        suite: one of `SUITES`.

    Raises:
        EngineError: no engine answers, or there is no way to make the image here.
    """
    with contextlib.closing(engine()) as client, _alone():
        return _base(client, suite)


def reach() -> dict[str, dict[str, str]]:
    """The volumes that let a container reach the package registries as this machine does.

    The certificates that it trusts and pip's settings, where there are any; apt's are in the image.
    """
    shared = {next(filter(_is_file, BUNDLES), ""): DEBIANS_BUNDLE, "/etc/pip.conf": "/etc/pip.conf"}
    return {here: {"bind": there, "mode": "ro"} for here, there in shared.items() if _is_file(here)}


def _is_file(path: str) -> bool:
    return Path(path).is_file()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _base(client: docker.DockerClient, suite: str) -> str:
    tag = f"{REPOSITORY}:{suite}"
    try:
        client.images.get(tag)
    except ImageNotFound:
        print(f"Making {tag}: {', '.join(BARE)}", flush=True)
        if not _from_official(client, suite):
            _from_packages(client, suite)
    return tag


def _apt_settings() -> str:
    program = shutil.which("apt-config")
    if program is None:
        return ""
    dump = subprocess.run((program, "dump"), capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in APT.findall(dump))


def _from_official(client: docker.DockerClient, suite: str) -> bool:
    try:
        image = client.images.pull(SUITES[suite].name, tag=SUITES[suite].codename)
    except APIError:
        return False
    script = (
        'set -e; printf %s "$1" > /etc/apt/apt.conf.d/99machine; shift; apt-get update -q; '
        'DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"; '
        "rm -rf /var/lib/apt/lists/*"
    )
    made = client.containers.create(
        image, ["sh", "-c", script, "sh", _apt_settings(), *BARE], volumes=reach()
    )
    try:
        made.start()
        if made.wait()["StatusCode"] != 0:
            raise EngineError(f"apt-get failed in the image of {suite}:\n{_end(made.logs())}")
        made.commit(REPOSITORY, suite, changes='CMD ["bash"]')
    finally:
        made.remove(force=True, v=True)
    return True


def _from_packages(client: docker.DockerClient, suite: str) -> None:
    distribution = SUITES[suite]
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="image-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # apt reads as a user of its own
        settings, archive = folder / "apt.conf", folder / "root.tar"
        settings.write_text(_apt_settings())
        command = ["mmdebstrap", "--variant=minbase", f"--include=apt,{','.join(BARE)}"]
        # Kept in the image, as /etc/apt/apt.conf.d/99mmdebstrap.
        command += [f"--components={distribution.components}", f"--aptopt={settings}"]
        if distribution.name == "ubuntu":
            command.append(f"--keyring={_ubuntus_keys(client, folder)}")
        _bootstrap([*command, distribution.codename, str(archive)])
        client.api.import_image_from_file(
            str(archive), repository=REPOSITORY, tag=suite, changes=['CMD ["bash"]']
        )


def _bootstrap(command: list[str]) -> None:
    if shutil.which("mmdebstrap") is None:
        if not debian.can_install():
            raise EngineError(
                "The official image cannot be pulled, and mmdebstrap, which makes such an image of "
                "Debian's packages, is not here. On Debian or Ubuntu: apt-get install mmdebstrap"
            )
        try:
            debian.install("mmdebstrap")
        except debian.InstallError as error:
            raise EngineError(str(error)) from None
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"mmdebstrap failed:\n{_end(done.stderr)}")


def _ubuntus_keys(client: docker.DockerClient, folder: Path) -> Path:
    """What Ubuntu's packages are signed with, as Debian has it since 13."""
    script = (
        "apt-get update -q && apt-get install -qy --no-install-recommends ubuntu-keyring "
        "&& cp /usr/share/keyrings/ubuntu-archive-keyring.gpg /keys/"
    )
    made = client.containers.create(
        _base(client, "13"),
        ["sh", "-c", script],
        volumes={str(folder): {"bind": "/keys", "mode": "rw"}} | reach(),
    )
    try:
        made.start()
        if made.wait()["StatusCode"] != 0:
            raise EngineError(f"Ubuntu's keys are not to be had:\n{_end(made.logs())}")
    finally:
        made.remove(force=True, v=True)
    return folder / "ubuntu-archive-keyring.gpg"


def _end(output: bytes) -> str:
    return output.decode(errors="replace")[-2000:]
