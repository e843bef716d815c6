"""What is removed, and what is left alone, of what runs before have left."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shared import lease
from stack import clean
from stack.folders import ROOT
from stack.servers import containers, data, debian

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
def test_a_link_in_its_place_is_not_followed(roots, home, which, capsys):
    (roots[which] / data.owner()).symlink_to(home.parent.parent)
    assert clean.main() == clean.REFUSED
    assert "belongs to somebody else" in capsys.readouterr().err
    assert home.read_text() == "Dear"


def test_what_is_ours_is_removed(roots):
    for root in roots:
        (root / data.owner() / "throwaway" / "one").mkdir(parents=True)
    data.clear_all()
    assert [list(root.iterdir()) for root in roots] == [[], []]


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


def test_a_setup_leaves_the_venv_that_a_run_works_with(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".stack").mkdir()
    with (checkout / ".stack" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            (sys.executable, "stack/bootstrap.py"),
            cwd=checkout, env=os.environ | {"PIP_NO_INDEX": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "stop it first" in done.stderr
    assert list((checkout / ".venv").iterdir()) == []


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
