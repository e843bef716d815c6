"""What is removed, and what is left alone, of what runs before have left."""

import os
import subprocess
import sys

import pytest

from stack import clean
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
    assert clean.main() == 1
    assert "belongs to somebody else" in capsys.readouterr().err
    assert home.read_text() == "Dear"


def test_what_is_ours_is_removed(roots):
    for root in roots:
        (root / data.owner() / "throwaway" / "one").mkdir(parents=True)
    data.clear_all()
    assert [list(root.iterdir()) for root in roots] == [[], []]


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
