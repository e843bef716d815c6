"""Where servers keep their data: in memory what nobody keeps, and on the disk what must last."""

import pytest

from stack.servers import data


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    for name in ("DISK", "MEMORY"):
        place = tmp_path / name.lower()
        place.mkdir()
        monkeypatch.setattr(data, name, place)
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
    assert data.kept().is_relative_to(places / "disk")
    data.clear_all()
    assert list(places.glob("*/*")) == []


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
