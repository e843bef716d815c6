"""What is removed, and what is left alone, of what runs before have left."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import NotFound

from shared import lease
from stack import bootstrap, clean
from stack.folders import ROOT, is_venv_held
from stack.servers import containers, data, debian, sources
from stack.servers.listening import DidNotStartError

APT = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def roots(tmp_path, monkeypatch):
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    for name, root in (("DISK", disk), ("MEMORY", memory)):
        root.mkdir()
        monkeypatch.setattr(data, name, root)
    monkeypatch.setattr(data, "_state", lambda: disk)
    return disk, memory


@pytest.fixture
def home(tmp_path):
    """What somebody else would like us to remove."""
    kept = tmp_path / "home" / "ada" / "letters"
    kept.parent.mkdir(parents=True)
    kept.write_text("Dear")
    return kept


def remove_all(_):
    data.clear_all()


def use(_):
    data.throwaway("test", durable=True)


@pytest.mark.parametrize("act", [remove_all, use])
@pytest.mark.parametrize("which", [0, 1], ids=["disk", "memory"])
def test_a_folder_of_somebody_else_is_not_followed(roots, home, monkeypatch, act, which):
    """Where everybody may write, anybody can make ours first, with links in it."""
    somebody = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: somebody + 1)
    made = roots[which] / data.owner()
    made.mkdir()
    for name in ("throwaway", "run"):
        (made / name).symlink_to(home.parent.parent)
    with pytest.raises(data.ForeignFolderError, match="belongs to somebody else"):
        act(None)
    assert home.read_text() == "Dear"


@pytest.mark.parametrize("which", [0, 1], ids=["disk", "memory"])
def test_a_link_in_its_place_is_not_followed(roots, home, which, capsys, monkeypatch):
    monkeypatch.setattr(clean, "is_venv_held", lambda: False)
    (roots[which] / data.owner()).symlink_to(home.parent.parent)
    assert clean.main() == clean.REFUSED
    assert "belongs to somebody else" in capsys.readouterr().err
    assert home.read_text() == "Dear"


def test_what_is_ours_is_removed(roots):
    for root in roots:
        (root / data.owner() / "throwaway" / "one").mkdir(parents=True)
    data.clear_all()
    assert [list(root.iterdir()) for root in roots] == [[], []]


@pytest.fixture
def cleaned(roots, monkeypatch):
    """Where a folder can be held, and what `make clean` then does."""
    monkeypatch.setattr(clean, "is_venv_held", lambda: False)
    monkeypatch.setattr(data, "docker_is_there", lambda: False)
    monkeypatch.setattr(clean.debian, "remove_leftovers", lambda: None)
    where = roots[0] / data.owner() / "throwaway"
    where.mkdir(parents=True)
    return where


def test_what_another_start_is_removing_is_waited_for(cleaned, monkeypatch):
    folder, held = lease.make(cleaned, "killed-")
    # The first sleep is the removal by the other one; a second fails.
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: os.close(held))
    monkeypatch.setattr(clean, "time", clock)
    assert clean.main() == 0
    assert not folder.exists()


def test_what_stays_in_use_is_not_removed(cleaned, monkeypatch, capsys):
    monkeypatch.setattr(clean, "PATIENCE_SECONDS", 0.0)
    folder, held = lease.make(cleaned, "used-")
    assert clean.main() == clean.REFUSED
    assert "stop it first" in capsys.readouterr().err
    assert folder.exists()
    os.close(held)


def test_what_a_checkout_that_is_gone_has_left_is_removed(roots):
    for root in roots:
        theirs = root / "order-fellow-0123456789ab" / "throwaway"
        theirs.mkdir(parents=True)
        killed, _ = lease.make(theirs, "test-")
        (killed / "postgres").mkdir()
        os.close(_)
        alive, held = lease.make(theirs, "test-")
        data.throwaway("test")
        assert [folder.name for folder in theirs.iterdir()] == [alive.name]
        os.close(held)


def test_a_folder_is_nobodys_to_remove_while_it_is_made(tmp_path, monkeypatch):
    """Another run, which removes what was abandoned, comes between any two of its steps."""
    lock = fcntl.flock

    def others_first(*asked):
        monkeypatch.setattr(fcntl, "flock", lock)
        lease.remove_abandoned(tmp_path)
        lock(*asked)

    monkeypatch.setattr(fcntl, "flock", others_first)
    folder, held = lease.make(tmp_path, "test-")
    lease.remove_abandoned(tmp_path)
    assert lease.is_held(folder)
    os.close(held)
    lease.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_who_only_look_are_in_nobodys_way(tmp_path, monkeypatch):
    folder, held = lease.make(tmp_path, "test-")
    os.close(held)
    close, seen = os.close, []

    def look_too(descriptor):
        monkeypatch.setattr(os, "close", close)
        seen.append(lease.is_held(folder))
        close(descriptor)

    monkeypatch.setattr(os, "close", look_too)
    assert (lease.is_held(folder), seen) == (False, [False])


def test_who_asks_keeps_nobody_from_a_folder(tmp_path, monkeypatch):
    folder, held = lease.make(tmp_path, "test-")
    os.close(held)
    close, taken = os.close, []

    def taken_meanwhile(descriptor):
        monkeypatch.setattr(os, "close", close)
        monkeypatch.setattr(lease.time, "sleep", lambda _: close(descriptor))
        taken.append(lease.take(folder))

    monkeypatch.setattr(os, "close", taken_meanwhile)
    assert not lease.is_held(folder)
    assert lease.is_held(folder)
    monkeypatch.setattr(lease.time, "sleep", lambda _: None)
    with pytest.raises(lease.LeasedError):
        lease.take(folder)
    os.close(*taken)


def test_a_folder_that_goes_while_one_asks_is_held_by_nobody(tmp_path, monkeypatch):
    folder, held = lease.make(tmp_path, "test-")
    open_, is_removed = os.open, []

    def goes(*asked, **more):
        if not is_removed:
            is_removed.append(True)
            shutil.rmtree(folder)
        return open_(*asked, **more)

    monkeypatch.setattr(os, "open", goes)
    assert not lease.is_held(folder)
    os.close(held)


COPIED = ("Makefile", "docker-compose.yml", "pyproject.toml", "requirements-dev.lock")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of this one, without a `.venv`, where no engine is."""
    folder = tmp_path / "checkout"
    for name in ("services", "shared", "stack"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in COPIED:
        shutil.copy(ROOT / name, folder)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    return folder


def without_packages(checkout):
    subprocess.run(
        (sys.executable, "-m", "venv", "--without-pip", ".venv"), cwd=checkout, check=True
    )


def without_python(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/usr/bin/python2.7-that-was-here")


@pytest.mark.parametrize("venv", [without_packages, without_python])
@pytest.mark.parametrize("engine", [False, True], ids=["", "an engine"])
def test_a_checkout_whose_setup_failed_is_cleaned(checkout, tmp_path, monkeypatch, venv, engine):
    venv(checkout)
    (checkout / ".stack").mkdir()
    script = "from stack.servers import data; print(data.kept())"
    # As a shell that starts no package of this venv's.
    python = f"{sys.base_prefix}/bin/python3"
    made = subprocess.run(
        (python, "-c", script), cwd=checkout, capture_output=True, text=True, check=True
    )
    kept = Path(made.stdout.strip())
    assert kept.is_dir()
    if engine:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "none"))
    done = subprocess.run(
        ("make", "clean", f"PYTHON={python}"),
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if engine:
        listening.close()
    assert done.returncode == 0, done.stderr
    assert ("docker volume rm" in done.stderr) is engine
    assert not kept.exists()
    assert not (checkout / ".venv").exists()
    assert not (checkout / ".stack").exists()


WORKS = """
import sys
from stack.folders import hold_venv
hold_venv()
print("at work", flush=True)
sys.stdin.read()
"""


def test_the_venv_that_somebody_works_with_is_left(checkout):
    """Whoever it is: `sudo make clean` is another user than whose run it is."""
    (checkout / ".venv").mkdir()
    bare = f"{sys.base_prefix}/bin/python3"
    with subprocess.Popen(
        (bare, "-c", WORKS), cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as work:
        assert work.stdout.readline()
        for command in (
            (bare, "stack/bootstrap.py"),
            (bare, "-c", IN_ANOTHERS_NAME),
            ("make", "clean", f"PYTHON={bare}"),
        ):
            done = subprocess.run(
                command, cwd=checkout, env=os.environ | {"PIP_NO_INDEX": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode != 0
            assert "stop it first" in done.stderr
            assert list((checkout / ".venv").iterdir()) == []
        work.communicate()
    assert subprocess.run(command, cwd=checkout, check=False).returncode == 0
    assert not (checkout / ".venv").exists()


IN_ANOTHERS_NAME = """
from stack import clean
from stack.servers import data
data.owner = lambda: "order-fellow-another"
raise SystemExit(clean.main())
"""


def test_tests_hold_the_venv_that_they_run_in():
    assert is_venv_held()


def test_whoever_works_with_the_venv_for_long_holds_it():
    named = set(
        re.findall(r"python\"? -m ((?:bench|stack|tests)\b[\w.]*)", (ROOT / "Makefile").read_text())
    )
    assert {"stack.run", "stack.servers", "tests.programs"} < named
    for name in sorted(named):
        if name == "stack.clean" or name.startswith("stack.generated."):  # is over at once
            continue
        path = ROOT / name.replace(".", "/")
        text = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        if main := re.search(r"^from (\S+) import main$", text, re.MULTILINE):
            text = (ROOT / main[1].replace(".", "/")).with_suffix(".py").read_text()
        assert re.search(r"^ +hold_venv\(\)$", text, re.MULTILINE), name


def a_wheel(folder, name):
    """One without anything in it but a module of its name."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_setup_goes_by_no_shell_of_somebody(checkout, tmp_path):
    """One in which `.venv` is activated, and pip is told to install elsewhere."""
    without_packages(checkout)
    (checkout / "requirements-dev.lock").write_text(a_wheel(tmp_path, "rich"))
    # It ends there: nothing can build the project itself.
    (checkout / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "no"')
    activated = f"{checkout}/.venv/bin:{os.environ['PATH']}"
    pip = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_USER": "1",
        "PIP_TARGET": str(tmp_path / "elsewhere"),
        "PIP_CONSTRAINT": "/nowhere",
    }
    done = subprocess.run(
        ("make", "setup", "PYTHON=python3"),
        cwd=checkout, env=os.environ | {"PATH": activated} | pip,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.startswith("pip could not install what is needed")
    assert list((checkout / ".venv").glob("lib/*/site-packages/rich.py"))
    assert not (checkout / ".venv" / "installed").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_venv_in_which_nothing_was_installed_is_not_ready(checkout, tmp_path, monkeypatch):
    """As where somebody's pip.conf has a target: pip says that all is well."""
    without_packages(checkout)
    monkeypatch.setattr(bootstrap, "VENV", checkout / ".venv")
    with pytest.raises(SystemExit, match="pip has installed nothing"):
        bootstrap._see_that_it_works()


def test_a_machine_that_is_no_linux_is_told_so():
    script = """
import runpy, sys
sys.platform = "darwin"
runpy.run_path("stack/bootstrap.py", run_name="__main__")
"""
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"Order Fellow runs on Linux.* darwin\n", done.stderr)


@pytest.mark.parametrize(
    ("error", "is_there", "cure"),
    [
        (errno.EACCES, True, "sudo make clean"),
        (errno.EACCES, False, "a copy of your own"),
        (errno.EROFS, True, "a copy of your own"),
    ],
)
def test_a_checkout_that_cannot_be_written_says_what_helps(
    tmp_path, monkeypatch, error, is_there, cure
):
    if is_there:
        (tmp_path / ".venv.lock").touch()

    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SystemExit, match=cure):
        bootstrap._lock_file()


@pytest.fixture
def contexts(tmp_path, monkeypatch):
    """Docker's own configuration, with contexts of these names and hosts."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def have(current, **hosts):
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": current}))
        for name, host in hosts.items():
            folder = tmp_path / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
            folder.mkdir(parents=True)
            meta = {"Name": name, "Endpoints": {"docker": {"Host": host}}}
            (folder / "meta.json").write_text(json.dumps(meta))

    return have


def test_the_engine_is_that_of_the_context_that_somebody_has_chosen(contexts, monkeypatch):
    assert data.docker_host() == "unix:///var/run/docker.sock"
    contexts("rootless", rootless="unix:///run/user/1000/docker.sock", build="ssh://ada@build")
    assert data.docker_host() == "unix:///run/user/1000/docker.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "build")
    assert data.docker_host() == "ssh://ada@build"
    assert not data.docker_is_there()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert data.docker_host() == "tcp://127.0.0.1:2375"


@pytest.mark.parametrize("chosen", ["default", "gone", "", None])
def test_without_a_context_the_engine_is_where_it_always_is(contexts, chosen):
    contexts(chosen)
    assert data.docker_host() == "unix:///var/run/docker.sock"


def test_what_looks_for_containers_and_what_starts_them_have_one_engine(tmp_path):
    """Testcontainers has a file of its own for its address."""
    (tmp_path / ".testcontainers.properties").write_text("tc.host=tcp://192.0.2.1:2375\n")
    script = """
from stack.servers import containers
import os
from testcontainers.core import docker_client
print(docker_client.get_docker_host(), os.environ["DOCKER_HOST"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    done = subprocess.run(
        (sys.executable, "-c", script),
        cwd=ROOT, env=environment | {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == 2 * ["unix:///var/run/docker.sock"]


@pytest.mark.parametrize(("network", "is_here"), [("host", True), ("bridge", False), (None, True)])
def test_an_engine_whose_container_we_are_publishes_elsewhere(
    tmp_path, monkeypatch, network, is_here
):
    class Client:
        def get(self, name):
            assert name == socket.gethostname()
            if network is None:
                raise NotFound("of another engine")
            self.attrs = {"HostConfig": {"NetworkMode": network}}
            return self

    client = Client()
    client.containers = client
    monkeypatch.setattr(containers, "INSIDE", tmp_path)
    assert containers._publishes_here(client) is is_here


@pytest.mark.parametrize(
    ("host", "is_there"),
    [
        ("tcp://docker:2375", False),
        ("ssh://ada@build.example", False),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://localhost:2376", True),
        ("unix:///nowhere", False),
    ],
)
def test_an_engine_of_another_machine_is_none(monkeypatch, host, is_there):
    """The ports of its containers are on that machine's loopback."""
    monkeypatch.setenv("DOCKER_HOST", host)
    assert data.docker_is_there() is is_there


def test_a_docker_host_of_no_letters_is_none_at_all(monkeypatch):
    """Docker takes it so too."""
    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.setattr(Path, "is_socket", lambda path: path == Path("/var/run/docker.sock"))
    assert data.docker_is_there()


def test_no_venv_says_nothing_of_docker(checkout, tmp_path):
    """Who cleans twice has nothing left, and the second time no packages to look with."""
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "none"))
        done = subprocess.run(
            ("make", "clean", f"PYTHON={sys.base_prefix}/bin/python3"),
            cwd=checkout, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_at_work_keeps_its_checkout(checkout):
    (checkout / ".stack").mkdir()
    python = f"{sys.base_prefix}/bin/python3"
    script = "from stack.servers import data; print(data.kept())"
    made = subprocess.run(
        (python, "-c", script), cwd=checkout, capture_output=True, text=True, check=True
    )
    held = lease.take(Path(made.stdout.strip()))
    clean = ("make", "clean", f"PYTHON={python}")
    refused = subprocess.run(clean, cwd=checkout, capture_output=True, text=True, check=False)
    os.close(held)
    assert refused.returncode != 0
    assert "stop it first" in refused.stderr
    assert (checkout / ".stack").exists()
    subprocess.run(clean, cwd=checkout, capture_output=True, check=True)
    assert not Path(made.stdout.strip()).exists()


TOO_OLD = "#!/bin/sh\necho 'SyntaxError: invalid syntax' >&2\nexit 1\n"


@pytest.mark.parametrize("python", ["missing", "too old"])
def test_a_python_that_cannot_look_ends_no_cleaning(checkout, tmp_path, python):
    program = tmp_path / "python"
    if python == "too old":
        program.write_text(TOO_OLD)
        program.chmod(0o755)
    (checkout / ".stack").mkdir()
    done = subprocess.run(
        ("make", "clean", f"PYTHON={program}"),
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr
    assert not (checkout / ".stack").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_program_whose_output_is_closed_goes_on(closed):
    script = """
import contextlib, signal
from stack.processes import stop_on_signals
stop_on_signals()
print(end="")
with contextlib.suppress(KeyboardInterrupt):
    signal.raise_signal(signal.SIGHUP)
"""
    done = subprocess.run(
        ("sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_installation_leaves_no_policy(tmp_path, monkeypatch):
    policy, theirs = tmp_path / "policy-rc.d", tmp_path / "createcluster.conf"
    dpkg = tmp_path / "lock-frontend"
    monkeypatch.setattr(debian, "DPKG_LOCK", dpkg)
    monkeypatch.setattr(debian, "POLICY", policy)
    monkeypatch.setattr(debian, "CLUSTER_CONF", theirs)
    monkeypatch.setattr(debian, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(debian, "can_install", lambda: True)
    theirs.write_text("create_main_cluster = false\n")
    killed = debian._no_services()
    killed.__enter__()
    assert policy.exists()
    # The next one takes it for its own, and not for the machine's.
    with debian._no_services():
        assert policy.exists()
    assert not policy.exists()
    killed_again = debian._no_services()
    killed_again.__enter__()
    with debian._alone():
        debian.remove_leftovers()
    assert policy.exists(), "of an installation that goes on"
    with subprocess.Popen(
        (sys.executable, "-c", APT, str(dpkg)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as apt:
        apt.stdout.readline()
        debian.remove_leftovers()
        apt.communicate()
    assert policy.exists(), "of one that was killed, whose apt goes on"
    debian.remove_leftovers()
    assert not policy.exists()
    assert theirs.exists()


def test_an_engine_that_does_not_answer_stops_no_cleaning(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    containers.remove_abandoned("order-fellow-test")
    assert "Docker keeps containers" in capsys.readouterr().out


class Engine:
    """Docker's SDK, with the containers that somebody's runs have left."""

    def __init__(self, *folders):
        self.containers = self
        self.left = [Container(self, folder) for folder in folders]

    def list(self, filters, ignore_removed, **_):
        return list(self.left)

    def close(self):
        pass


class Container:
    name = "postgres-1"

    def __init__(self, engine, folder):
        self.engine, self.labels = engine, {containers.FOLDER: str(folder)}

    def remove(self, **_):
        self.engine.left.remove(self)


@pytest.fixture
def engine(roots, monkeypatch):
    """One that answers, on which nothing is made."""

    def answers(*folders):
        found = Engine(*folders)
        monkeypatch.setattr(containers.docker, "from_env", lambda **_: found)
        monkeypatch.setattr(sources, "_containers_are_available", lambda: True)
        for name in ("RabbitMQContainer", "PostgreSQLContainer"):
            monkeypatch.setattr(containers, name, lambda *_, **__: None)
        return found

    return answers


def test_a_killed_run_leaves_no_container_on_the_data_of_the_next(engine):
    """Two servers on one volume destroy what is in it, and neither notices."""
    kept, other = sources._kept(), data.throwaway("test")
    found = engine(kept, other, "/of/a/test/that/was/killed")
    sources.make(kept, keep=True)
    assert [each.labels[containers.FOLDER] for each in found.left] == [str(other)]


def test_a_container_that_stays_keeps_others_off_its_volume(monkeypatch):
    """As one that the engine cannot remove, or that somebody has started by hand."""
    server = object.__new__(containers.PostgreSQLContainer)
    server._volume, server._is_known, server._container = "its-volume", False, server
    server.get_docker_client = lambda: server
    server.client = Engine("/anywhere")
    with pytest.raises(DidNotStartError, match="postgres-1 runs on the volume its-volume"):
        server.launch()
