import pytest

from services.ops import keys
from shared.config.processes import KEYS


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


def test_nothing_is_left_of_one_that_failed(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys, "_put", full)
    with pytest.raises(keys.KeysError, match="No space left"):
        keys.write(tmp_path / "secrets", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", keys.PASSWORDS)
def test_a_changed_password_changes_wherever_it_stands(tmp_path, name):
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
def test_what_is_completed_agrees_with_what_was_there(tmp_path, lacking):
    folder = tmp_path / "secrets"
    keys.write(folder, {})
    (folder / lacking).unlink()
    kept = {path: path.read_text() for path in folder.glob("*_password")}
    assert keys.complete(folder) == [lacking]
    assert {path: path.read_text() for path in kept} == kept
    passwords = {name: (folder / f"{name}_password").read_text().strip() for name in keys.PASSWORDS}
    listed = (folder / "service_passwords").read_text().strip().split(",")
    assert dict(one.split("=") for one in listed) == {
        name: passwords[name] for name in keys.PASSWORDS if name not in keys.ADMINISTRATORS
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
        with pytest.raises(keys.KeysError, match="no operator's name"):
            keys.operator(folder, name)
