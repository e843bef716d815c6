"""Where servers keep their data: in memory what nobody keeps, and on the disk what must last."""

import fcntl
import os
from pathlib import Path

import pytest

from stack.servers import containers, data, postgres, rabbitmq, sources
from stack.servers.listening import DidNotStartError

STATE = data._state


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    for name in ("DISK", "MEMORY"):
        place = tmp_path / name.lower()
        place.mkdir()
        monkeypatch.setattr(data, name, place)
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(data, "_state", lambda: tmp_path / "state")
    monkeypatch.setattr(data, "CGROUP", tmp_path / "none")
    data._has_room.cache_clear()
    yield tmp_path
    data._has_room.cache_clear()


@pytest.mark.parametrize(
    ("room", "durable", "where"),
    [(0, False, "memory"), (1 << 62, False, "disk"), (0, True, "disk")],
)
def test_what_nobody_keeps_is_in_memory_where_there_is_room(
    monkeypatch, places, room, durable, where
):
    monkeypatch.setattr(data, "ROOM", room)
    folder = data.throwaway("tests", durable=durable)
    assert folder.is_relative_to(places / where)
    assert data.throwaways() == [folder.parent]
    assert data.kept().is_relative_to(places / "state")
    data.clear_all()
    assert list(places.glob("*/*")) == []


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.max": "5000000\n",
            "memory.current": "5000000\n",
            "memory.stat": "anon 1\ninactive_file 4000000\n",
        },
        {
            "memory/memory.limit_in_bytes": "5000000",
            "memory/memory.usage_in_bytes": "1000000",
            "memory/memory.stat": "total_inactive_file 0\n",
        },
    ],
    ids=["cgroup v2", "v1"],
)
@pytest.mark.parametrize(("room", "where"), [(1_000_000, "memory"), (5_000_000, "disk")])
def test_what_a_container_may_use_is_less_than_its_machine_has(
    monkeypatch, places, files, room, where
):
    class Huge:
        f_bavail, f_frsize = 1 << 40, 1

    monkeypatch.setattr(os, "statvfs", lambda _: Huge)
    monkeypatch.setattr(data, "CGROUP", places / "cgroup")
    monkeypatch.setattr(data, "ROOM", room)
    for name, text in files.items():
        path = data.CGROUP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert data.throwaway("tests").is_relative_to(places / where)


def test_what_killed_runs_left_is_removed_wherever_it_is(places):
    for place in (data.DISK, data.MEMORY):
        left = place / data.owner() / "throwaway" / "tests-left"
        left.mkdir(parents=True)
        (left / ".lease").touch()
    data.throwaway("tests")
    assert list(places.glob("*/*/*/tests-left")) == []


def test_a_folder_of_somebody_else_is_not_used(places, monkeypatch):
    monkeypatch.setattr(data, "ROOM", 1 << 62)
    (data.DISK / data.owner()).symlink_to(places)
    with pytest.raises(data.ForeignFolderError, match="belongs to somebody else"):
        data.throwaway("tests")


@pytest.mark.parametrize(
    ("user", "given", "where"),
    [
        (0, "", "/var/lib"),
        (1000, "{}/state", "{}/state"),
        (1000, "", "{}/home/.local/state"),
        (1000, "relative", "{}/home/.local/state"),
        (1000, "{}/a state", "/var/tmp"),
    ],
)
def test_what_stays_is_where_nobody_tidies_up(monkeypatch, places, user, given, where):
    """What is 30 days old in /var/tmp goes (tmpfiles.d(5)); RabbitMQ bears no space in a path."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("HOME", str(places / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", given.format(places))
    monkeypatch.setattr(data, "DISK", Path("/var/tmp"))
    assert STATE() == Path(where.format(places))


def test_what_an_older_version_has_kept_stays_where_it_is(places):
    older = data.DISK / data.owner() / "run"
    older.mkdir(parents=True)
    assert data.kept() == older


def test_what_is_used_is_not_tidied_up():
    """systemd-tmpfiles(8) passes by a folder that is locked itself."""
    folder = sources._kept()
    opened = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(opened)


@pytest.mark.parametrize(
    ("server", "made"),
    [(postgres.PostgreSQL, "cluster/PG_VERSION"), (rabbitmq.RabbitMQ, "mnesia/node")],
)
def test_data_whose_password_is_gone_are_not_given_another(places, monkeypatch, server, made):
    folder = places / "data"
    (folder / made).parent.mkdir(parents=True)
    (folder / made).touch()
    monkeypatch.setattr(rabbitmq.PortMapper, "start", lambda *_: None)
    monkeypatch.setattr(postgres, "programs", lambda _: Path("/nowhere"))
    with pytest.raises(DidNotStartError, match=f"{folder}/password is gone"):
        server(folder).launch()
    assert not (folder / "password").exists()


def test_kept_data_that_are_not_used_are_told_of(places, monkeypatch, capsys):
    """Docker comes and goes, and each kind keeps its own."""
    monkeypatch.setattr(sources, "install_missing", lambda **_: None)
    for name in ("remove_abandoned", "RabbitMQContainer", "PostgreSQLContainer"):
        monkeypatch.setattr(containers, name, lambda *_, **__: None)
    said = []
    for docker_is_here in (False, False, True, True, False):
        monkeypatch.setattr(sources, "_containers_are_available", lambda here=docker_is_here: here)
        sources.make(places / "run", keep=True)
        said.append(capsys.readouterr().out)
    assert [("private nodes" in one, "Docker" in one) for one in said] == [
        (False, False),
        (False, False),
        (True, False),
        (True, False),
        (False, True),
    ]
