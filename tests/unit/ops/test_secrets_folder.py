import pytest

from services.ops import keys


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
