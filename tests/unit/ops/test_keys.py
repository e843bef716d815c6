import os
import resource
import shutil
import sys

import pytest
from typer.testing import CliRunner

from services.ops import keys, secret_files
from services.ops.cli.system.keys import app
from shared.config.processes import KEYS
from shared.security.service_accounts import BROKER_USERS


def test_the_folder_is_made_once(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {"JWT_SIGNING_KEY": "kept"})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == set(keys.FILES)
    assert before["jwt_signing_key"] == b"kept\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(keys.KeysError, match="there already"):
        keys.write(folder, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def in_a_process(act, *, before=lambda: None):
    """Run `act` in a forked process; returns 0 if it was refused, 1 if it was done."""
    child = os.fork()
    if child == 0:
        before()
        try:
            act()
        except keys.KeysError:
            os._exit(0)
        else:
            os._exit(1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def no_file_larger_than(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 60])
def test_a_failed_write_leaves_no_folder(tmp_path, size):
    made = in_a_process(
        lambda: keys.write(tmp_path / "secrets", {}), before=no_file_larger_than(size)
    )
    assert made == 0
    assert list(tmp_path.iterdir()) == []


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CHANGES = {
    "add": lambda folder: keys.add(folder, "SECRET_ENCRYPTION_KEYS"),
    "promote": lambda folder: keys.promote(folder, "UNSUBSCRIBE_KEYS"),
    "drop": lambda folder: keys.drop(folder, "TRACKING_KEYS"),
    "change": lambda folder: keys.change(folder, "rabbitmq"),
    "complete": keys.complete,
    "operator": lambda folder: keys.operator(folder, "ada"),
}


def prepared(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    keys.operator(folder, "ada")
    for name in ("UNSUBSCRIBE_KEYS", "TRACKING_KEYS"):
        keys.add(folder, name)
    keys.promote(folder, "TRACKING_KEYS")
    (folder / "second_factor_keys").unlink()
    return folder


@pytest.mark.parametrize("size", [0, 16, 60, 100])
@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk_leaves_all_files_unchanged(tmp_path, change, size):
    folder = prepared(tmp_path)
    before = contents(folder)
    done = in_a_process(lambda: CHANGES[change](folder), before=no_file_larger_than(size))
    assert done == 1 or (done == 0 and contents(folder) == before)
    assert size or not done
    if done == 0:
        CHANGES[change](folder)
    assert contents(folder) != before
    assert all(not name.endswith(secret_files.BEFORE) for name in contents(folder))


def dies_at(line):
    """The process exits at the n-th executed line of the module that writes."""

    def before():
        left = line

        def trace(frame, event, _argument):
            nonlocal left
            if frame.f_code.co_filename != secret_files.__file__:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os._exit(9)
            return trace

        sys.settrace(trace)

    return before


@pytest.mark.parametrize("change", CHANGES)
def test_a_crash_at_any_line_leaves_the_old_or_the_new_text(tmp_path, change):
    first = prepared(tmp_path)
    before = contents(first)
    line, ended = 0, 9
    while ended == 9:
        line += 1
        folder = shutil.copytree(first, tmp_path / str(line))
        ended = in_a_process(lambda folder=folder: CHANGES[change](folder), before=dies_at(line))
        after = contents(folder)
        for name, old in before.items():
            new = after.get(name, b"")
            assert after.get(f"{name}{secret_files.BEFORE}", old) == old
            if name in ("secret_encryption_keys", "unsubscribe_keys", "tracking_keys"):
                listed = new.decode().strip().split(",")
                assert {len(key) for key in listed} == {44}, (line, name, new)
                assert len(listed) - len(old.split(b",")) in (0, 1 if change == "add" else -1)
            elif not name.endswith(".added"):
                assert new == old or len(new.strip()) >= len(old.strip()), (line, name, new)
        shutil.rmtree(folder)
    assert ended == 1
    assert line > 10


def test_the_copies_of_an_interrupted_change_can_be_restored_by_hand(tmp_path):
    """It is renamed to the original name, where a container must be able to read it."""
    modes = set()

    def look(frame, event, _):
        modes.update(
            path.stat().st_mode & 0o777 for path in folder.glob(f"[!.]*{secret_files.BEFORE}")
        )
        return look

    folder = prepared(tmp_path)
    sys.settrace(look)
    try:
        keys.change(folder, "rabbitmq")
    finally:
        sys.settrace(None)
    assert modes == {0o444}


def test_restored_files_become_readable_to_containers(tmp_path):
    folder, killed = tmp_path / "secrets", tmp_path / ".secrets-abcd"
    keys.write(folder, {})
    before = contents(folder)
    for path in folder.iterdir():
        path.chmod(0o600)
    killed.mkdir()
    (killed / "jwt_signing_key").write_text("of a write that was killed")
    if os.geteuid() == 0:
        os.chown(folder, 4711, 4711)
    assert keys.complete(folder) == []
    assert contents(folder) == before
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert {path.stat().st_uid for path in folder.iterdir()} == {folder.stat().st_uid}
    assert not killed.exists()


def test_an_interrupted_change_is_reported_by_the_next(tmp_path):
    folder = prepared(tmp_path)
    (folder / "secret_encryption_keys.before").write_bytes(b"what was there\n")
    before = contents(folder)
    with pytest.raises(keys.KeysError, match=r"secret_encryption_keys\.before has what"):
        keys.add(folder, "SECRET_ENCRYPTION_KEYS")
    assert contents(folder) == before


@pytest.mark.parametrize("step", [keys.add, keys.promote, keys.drop])
def test_an_empty_list_of_keys_is_refused(tmp_path, step):
    folder = prepared(tmp_path)
    file = folder / "secret_encryption_keys"
    file.chmod(0o644)
    file.write_text("\n")
    with pytest.raises(keys.KeysError, match="secret_encryption_keys: empty"):
        step(folder, "SECRET_ENCRYPTION_KEYS")
    assert file.read_text() == "\n"


def test_an_empty_password_is_refused(tmp_path):
    folder = prepared(tmp_path)
    file = folder / "rabbitmq_password"
    file.chmod(0o644)
    file.write_text("")
    before = contents(folder)
    for step in (keys.complete, lambda folder: keys.change(folder, "kyc")):
        with pytest.raises(keys.KeysError, match="rabbitmq_password: empty"):
            step(folder)
    assert contents(folder) == before
    keys.change(folder, "rabbitmq")
    assert file.read_text().strip()


def test_a_list_can_be_rotated_after_an_interrupted_promotion(tmp_path):
    """Between its two writes the key is promoted, but its marker still exists."""
    folder = prepared(tmp_path)
    name, file = "SECRET_ENCRYPTION_KEYS", folder / "secret_encryption_keys"
    keys.add(folder, name)
    (marker,) = folder.glob("secret_encryption_keys.*")
    left = marker.read_text()
    keys.promote(folder, name)
    marker.write_text(left)
    keys.drop(folder, name)
    only = file.read_text().strip()
    keys.add(folder, name)
    keys.promote(folder, name)
    assert file.read_text().strip().split(",")[1:] == [only]


def test_a_key_is_promoted_once(tmp_path):
    folder = prepared(tmp_path)
    name, file = "SECRET_ENCRYPTION_KEYS", folder / "secret_encryption_keys"
    old = file.read_text().strip()
    keys.add(folder, name)
    for step in (keys.add, keys.drop):
        with pytest.raises(keys.KeysError, match="promote"):
            step(folder, name)
    keys.promote(folder, name)
    promoted = file.read_text()
    assert promoted.strip().split(",")[1] == old
    with pytest.raises(keys.KeysError, match="waits to be promoted"):
        keys.promote(folder, name)
    assert file.read_text() == promoted
    keys.add(folder, name)
    keys.promote(folder, name)
    assert file.read_text().strip().endswith(promoted.strip())


@pytest.mark.parametrize("name", keys.PASSWORDS)
def test_a_new_password_is_written_to_all_files_that_repeat_it(tmp_path, name):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    old = (folder / f"{name}_password").read_text().strip()
    inode = (folder / f"{name}_password").stat().st_ino
    keys.change(folder, name)
    assert (folder / f"{name}_password").stat().st_ino == inode
    assert not any(old in path.read_text() for path in folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    with pytest.raises(keys.KeysError, match="has no password"):
        keys.change(folder, "nobody")


def test_a_folder_of_an_older_version_gets_the_password_that_it_lacks(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    (folder / "proof_password").unlink()
    keys.change(folder, "proof")
    made = (folder / "proof_password").read_text().strip()
    assert f"proof={made}" in (folder / "service_passwords").read_text().strip().split(",")


@pytest.mark.parametrize("name", KEYS)
def test_a_list_of_keys_rotates_in_three_steps(tmp_path, name):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    file = folder / name.lower()
    others = {path: path.read_text() for path in folder.iterdir() if path != file}
    (old,) = file.read_text().strip().split(",")
    keys.add(folder, name)
    first, new = file.read_text().strip().split(",")
    assert first == old != new
    keys.promote(folder, name.lower())
    assert file.read_text().strip().split(",") == [new, old]
    keys.drop(folder, name)
    assert file.read_text().strip() == new
    assert others == {path: path.read_text() for path in folder.iterdir() if path != file}
    assert file.stat().st_mode & 0o777 == 0o444
    for step in (keys.promote, keys.drop):
        with pytest.raises(keys.KeysError, match="lists 1 key"):
            step(folder, name)
        assert file.read_text().strip() == new


def test_a_folder_of_an_older_version_gets_the_list_that_it_lacks(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    (folder / "one_time_code_keys").unlink()
    keys.add(folder, "ONE_TIME_CODE_KEYS")
    assert len((folder / "one_time_code_keys").read_text().strip().split(",")) == 1
    with pytest.raises(keys.KeysError, match="no list of keys"):
        keys.add(folder, "ops_password")
    with pytest.raises(keys.KeysError, match="no folder"):
        keys.add(tmp_path / "nowhere", "ONE_TIME_CODE_KEYS")


def test_an_older_folder_is_completed(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    for name in ("console_password", "one_time_code_keys", "operator_passwords"):
        (folder / name).unlink()
    kept = {p: p.read_text() for p in folder.iterdir() if p.name != "service_passwords"}
    assert sorted(keys.complete(folder)) == [
        "console_password",
        "one_time_code_keys",
        "operator_passwords",
    ]
    assert {path.name for path in folder.iterdir()} == set(keys.FILES)
    assert {path: path.read_text() for path in kept} == kept
    made = (folder / "console_password").read_text().strip()
    assert f"console={made}" in (folder / "service_passwords").read_text().strip().split(",")
    assert keys.complete(folder) == []


@pytest.mark.parametrize("lacking", keys.FILES)
def test_completed_files_repeat_the_existing_passwords(tmp_path, lacking):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    (folder / lacking).unlink()
    kept = {path: path.read_text() for path in folder.glob("*_password")}
    assert keys.complete(folder) == [lacking]
    assert {path: path.read_text() for path in kept} == kept
    passwords = {name: (folder / f"{name}_password").read_text().strip() for name in keys.PASSWORDS}
    listed = (folder / "service_passwords").read_text().strip().split(",")
    assert dict(one.split("=") for one in listed) == {
        name: passwords[name] for name in BROKER_USERS
    }
    assert f"default_pass = {passwords['rabbitmq']}\n" in (folder / "rabbitmq.conf").read_text()


def test_operators_have_users_of_their_own(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    first, other, second = (keys.operator(folder, name) for name in ("ada", "ola", "ada"))
    listed = (folder / "operator_passwords").read_text().strip().split(",")
    assert listed == [f"ada={second}", f"ola={other}"]
    assert first not in listed
    for name in ("fellow_kyc", "Ada", "guest", "a,b=c"):
        with pytest.raises(keys.KeysError, match="not a valid operator name"):
            keys.operator(folder, name)


def test_secrets_from_outside_are_stored(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    done = CliRunner().invoke(
        app, ["give", "smtp_password", "--folder", str(folder)], input="from the provider\n"
    )
    assert done.exit_code == 0, done.output
    given = folder / "smtp_password"
    assert given.read_text() == "from the provider\n"
    assert given.stat().st_mode & 0o777 == secret_files.READABLE
    for name, value in (("jwt_signing_key", "mine"), ("smtp_password", "two\nlines")):
        with pytest.raises(keys.KeysError):
            keys.give(folder, name, value)
    assert given.read_text() == "from the provider\n"


def test_an_operator_is_removed(tmp_path):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    password = keys.operator(folder, "ada")
    keys.operator(folder, "ben")
    keys.forget_operator(folder, "ben")
    assert (folder / "operator_passwords").read_text() == f"ada={password}\n"
    with pytest.raises(keys.KeysError, match="there is ada"):
        keys.forget_operator(folder, "ben")


@pytest.mark.parametrize(
    "written",
    [
        "JWT_SIGNING_KEY=one two#3",
        "export JWT_SIGNING_KEY = 'one two#3'",
        'JWT_SIGNING_KEY="one two#3" # since May',
        "JWT_SIGNING_KEY=one two#3 # since May",
    ],
)
def test_an_env_file_is_read_as_compose_reads_it(tmp_path, written):
    known = tmp_path / ".env"
    known.write_text(f"# of the version before\n{written}\nPORT=8000\n")
    folder = tmp_path / "secrets"
    done = CliRunner().invoke(app, ["write", str(folder), "--from", str(known)])
    assert done.exit_code == 0, done.output
    assert (folder / "jwt_signing_key").read_text() == "one two#3\n"


@pytest.mark.parametrize("written", ["'not closed", '"a \\" b"', '"a" b'])
def test_unsupported_quotes_are_refused(tmp_path, written):
    known = tmp_path / ".env"
    known.write_text(f"JWT_SIGNING_KEY={written}\n")
    done = CliRunner().invoke(app, ["write", str(tmp_path / "secrets"), "--from", str(known)])
    assert done.exit_code == 1
    assert "write it without any" in done.output
    assert not (tmp_path / "secrets").exists()
