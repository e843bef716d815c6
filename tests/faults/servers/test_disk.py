"""The disk of the database is full: nothing is lost, and all goes on when there is room."""

import os
import subprocess
from contextlib import suppress

import pytest
from sqlalchemy.exc import DBAPIError

from stack.servers.postgres import PostgreSQL
from stack.servers.sources import install_missing
from tests.integration.arrange import until

SIZE_MB = 160


@pytest.fixture(scope="module")
def small_disk(open_folder):
    folder = open_folder / "disk"
    folder.mkdir(mode=0o711)
    command = ("mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=711", "tmpfs", str(folder))
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("a disk of its own takes root and the right to mount one")
    yield folder
    subprocess.run(("umount", "--lazy", str(folder)), check=True)


@pytest.fixture(scope="module")
def postgres(small_disk):
    install_missing(needs_broker=False)
    server = PostgreSQL(small_disk / "postgres", durable=False)
    try:
        server.start()
        server.execute("ALTER SYSTEM SET max_wal_size = '48MB'")
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def books_url(postgres):
    return postgres.url()


def test_the_database_has_no_room_left(stand, postgres, small_disk):
    filler = small_disk / "filler"
    with stand.load() as load:
        stand.go_on(1)
        fill(filler)
        until(lambda: not can_write(stand, filler), "the database cannot write")
        stand.go_on(6)
        filler.unlink()
        stand.go_on_until(lambda: answers(stand, postgres), "the database answers")
        stand.go_on(2)
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def fill(path):
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def answers(stand, postgres):
    if not postgres.is_running:
        # It gives up when even its log has no room, perhaps only now, and ops staff start it again.
        postgres.start()
    try:
        with stand.engine.connect() as connection:
            return bool(connection.exec_driver_sql("SELECT 1").scalar())
    except DBAPIError:
        return False


def can_write(stand, filler):
    fill(filler)  # what it has freed meanwhile
    stand.supervisor.watch()
    try:
        with stand.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS room AS SELECT 1")
            connection.exec_driver_sql(
                "INSERT INTO room SELECT n FROM generate_series(1, 100000) n"
            )
    except DBAPIError:
        return False
    return True
