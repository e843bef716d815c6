"""Generates and rotates keys and passwords, as lines of an env file or as files in `secrets/`."""

import base64
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.ops import secret_files
from shared.config.keys import KEY_BYTES
from shared.config.processes import KEYS
from shared.security.service_accounts import BROKER_USERS, OPERATOR_NAME, is_operator_name

ADMINISTRATORS = ("rabbitmq", "postgres")
PASSWORDS = (*ADMINISTRATORS, "standby", *BROKER_USERS)
"""`standby`: the replication user of the second PostgreSQL (docker-compose.cluster.yml)."""
GIVEN = ("smtp_password", "alert_webhook_url")
FILES = (
    *(name.lower() for name in KEYS),
    *GIVEN,
    *(f"{name}_password" for name in PASSWORDS),
    "service_passwords",
    "operator_passwords",
    "rabbitmq.conf",
    "erlang_cookie",
)
"""The files in `secrets/`; docker-compose.yml mounts into each container those that it needs."""
_OF_PASSWORDS = ("service_passwords", "rabbitmq.conf")
"""Files that repeat other passwords."""
_ADDED = ".added"
"""Suffix of the file that marks which key of a list was added and is not promoted yet."""


_UNFINISHED = ".secrets-"
"""Prefix of an incomplete folder."""


class KeysError(Exception):
    """The operation is not possible; the message says why, and what to do."""


def generate() -> dict[str, str]:
    """Return random values for all secrets of `docker-compose.yml`."""
    return {name: _key(name) for name in KEYS} | {
        # Hexadecimal, since passwords are parts of URLs.
        "RABBITMQ_PASSWORD": secrets.token_hex(24),
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "STANDBY_PASSWORD": secrets.token_hex(24),
        "ERLANG_COOKIE": secrets.token_hex(24),
        **{f"{name.upper()}_PASSWORD": secrets.token_hex(24) for name in BROKER_USERS},
    }


def write(folder: Path, known: Mapping[str, str]) -> None:
    """Make `secrets/`, complete or not at all, and never over an existing one.

    Args:
        folder: the folder to make, for the owner of its parent folder.
        known: existing keys and passwords to keep, by the names of `generate`.

    Raises:
        KeysError: the folder exists, or cannot be made.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise KeysError(
            f"{folder} is there already, and nothing in it was changed: it holds the keys of what "
            "is stored. For a new password: keys change NAME. To begin anew, move it away first."
        )
    values = generate() | dict(known)
    try:
        made = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    except OSError as error:
        raise KeysError(f"{folder} cannot be made: {error}") from error
    try:
        secret_files.put(made, {name: _content(name, values) for name in FILES})
        owner = folder.parent.stat()
        for path in (*made.iterdir(), made):
            os.chown(path, owner.st_uid, owner.st_gid)
        # rename(2) refuses a target folder that is not empty.
        made.replace(folder)
    except OSError as error:
        raise KeysError(f"{folder} cannot be made: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def change(folder: Path, name: str) -> None:
    """Write a new password into all files of `secrets/` that contain the old one.

    Args:
        folder: `secrets/`.
        name: one of `PASSWORDS`.

    Raises:
        KeysError: there is no such password, or the folder cannot be written and is unchanged.
    """
    if name not in PASSWORDS:
        raise KeysError(f"{name} has no password; these have: {', '.join(PASSWORDS)}")
    values = _passwords(folder, but=name) | {f"{name.upper()}_PASSWORD": secrets.token_hex(24)}
    if "RABBITMQ_PASSWORD" not in values:
        raise KeysError(f"{folder} lacks rabbitmq_password: `keys complete` makes it.")
    files = (f"{name}_password", *_OF_PASSWORDS)
    _put(folder, {file: _content(file, values) for file in files})


def complete(folder: Path) -> list[str]:
    """Make the files that a folder of an older version lacks; returns their names.

    Also restores the owner and mode of all files, which a restored copy may lack, and which the
    containers' users need.

    Args:
        folder: `secrets/`.

    Raises:
        KeysError: there is no such folder, or it cannot be written.
    """
    values = generate() | _passwords(folder)
    lacking = [name for name in FILES if not (folder / name).exists()]
    names = (*lacking, *(_OF_PASSWORDS if lacking else ()))
    _put(folder, {name: _content(name, values) for name in names})
    try:
        owner = folder.stat()
        for name in FILES:
            os.chown(folder / name, owner.st_uid, owner.st_gid)
            (folder / name).chmod(secret_files.READABLE)
        # Left by a `write` that was killed; it is obsolete, since the folder exists.
        for left in folder.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
    except OSError as error:
        raise KeysError(f"{folder} is whole, and not as containers need it: {error}") from error
    return lacking


def give(folder: Path, name: str, value: str) -> None:
    """Write a secret from outside, such as a provider's password, into `secrets/`.

    Args:
        folder: `secrets/`.
        name: one of `GIVEN`.
        value: one line; an empty one removes the secret.

    Raises:
        KeysError: there is no such secret, the value is not one line, or the folder is incomplete.
    """
    if name not in GIVEN:
        raise KeysError(f"{name} is made here, not given; these are: {', '.join(GIVEN)}")
    if not value.isprintable():
        raise KeysError(
            f"{name} must be one line, without control characters. Nothing was changed."
        )
    if _text(folder, name) is None:
        raise KeysError(f"{folder} lacks {name}: `keys complete` makes it.")
    _put(folder, {name: value})


def forget_operator(folder: Path, name: str) -> None:
    """Remove an operator's password from `secrets/`; the broker keeps the user.

    Raises:
        KeysError: there is no such operator, or the folder is incomplete.
    """
    known = _operators(folder)
    if known.pop(name, None) is None:
        raise KeysError(f"There is no operator {name}: there is {', '.join(known) or 'none'}.")
    _put_operators(folder, known)


def operator(folder: Path, name: str) -> str:
    """Give an operator a broker user, or a new password; returns the password.

    Args:
        folder: `secrets/`.
        name: the operator's name, as on the console.

    Raises:
        KeysError: the name is invalid, or the folder is incomplete.
    """
    if not is_operator_name(name):
        raise KeysError(f"{name} is not a valid operator name: {OPERATOR_NAME}")
    known = _operators(folder)
    known[name] = secrets.token_hex(24)
    _put_operators(folder, known)
    return known[name]


def add(folder: Path, name: str) -> None:
    """Append a new key to a list: it decrypts and verifies, and is not used otherwise yet.

    Args:
        folder: `secrets/`; a missing list of an older version is made.
        name: one of `KEYS`, in any case.

    Raises:
        KeysError: there is no such list, or the last added key is not promoted yet.
    """
    setting = _setting(name)
    listed, new = _read(folder, setting), _key(setting)
    if _waits(folder, setting, listed):
        raise KeysError(f"The last key of {setting} was added and is not promoted: promote it.")
    # The first key of a list needs no promotion.
    marks = {_marker(setting): _digest(new)} if listed else {}
    _put(folder, {**marks, setting.lower(): ",".join([*listed, new])})


def promote(folder: Path, name: str) -> None:
    """Move the added key of a list to the front: it encrypts or signs from the next start on.

    Args:
        folder: `secrets/`.
        name: one of `KEYS`, in any case.

    Raises:
        KeysError: there is no such list, or no key to promote.
    """
    setting = _setting(name)
    listed = _several(folder, setting)
    *others, newest = listed
    if not _waits(folder, setting, listed):
        raise KeysError(
            f"No key of {setting} waits to be promoted: it was done, or `keys add` of this version "
            "has added none. Nothing was changed."
        )
    _put(folder, {setting.lower(): ",".join([newest, *others])})
    (folder / _marker(setting)).unlink()


def drop(folder: Path, name: str) -> None:
    """Remove the oldest key of a list, the last: what it encrypted or signed becomes invalid.

    Args:
        folder: `secrets/`.
        name: one of `KEYS`, in any case.

    Raises:
        KeysError: there is no such list, it has only one key, or the last is not promoted yet.
    """
    setting = _setting(name)
    listed = _several(folder, setting)
    if _waits(folder, setting, listed):
        raise KeysError(f"The last key of {setting} is its newest: promote it first.")
    _put(folder, {setting.lower(): ",".join(listed[:-1])})


def _passwords(folder: Path, but: str = "") -> dict[str, str]:
    """Return the existing passwords; a folder of an older version may lack some."""
    texts = {name: _text(folder, f"{name}_password") for name in PASSWORDS if name != but}
    empty = [f"{name}_password" for name, text in texts.items() if text == ""]
    if empty:
        raise KeysError(_empty(folder, empty))
    return {f"{name.upper()}_PASSWORD": text for name, text in texts.items() if text}


def _operators(folder: Path) -> dict[str, str]:
    listed = _text(folder, "operator_passwords") or ""
    return dict(one.split("=", 1) for one in listed.split(",") if "=" in one)


def _put_operators(folder: Path, known: Mapping[str, str]) -> None:
    listed = ",".join(f"{one}={password}" for one, password in known.items())
    _put(folder, {"operator_passwords": listed})


def _setting(name: str) -> str:
    if name.upper() not in KEYS:
        raise KeysError(f"{name} is no list of keys; these are: {', '.join(KEYS)}")
    return name.upper()


def _read(folder: Path, setting: str) -> list[str]:
    """Return the keys of a list; none if a folder of an older version lacks it."""
    text = _text(folder, setting.lower())
    listed = [key for part in (text or "").split(",") if (key := part.strip())]
    if text is not None and not listed:
        raise KeysError(_empty(folder, [setting.lower()]))
    return listed


def _several(folder: Path, setting: str) -> list[str]:
    found = _read(folder, setting)
    if len(found) < 2:
        raise KeysError(f"{setting} lists {len(found)} key: add another first.")
    return found


def _waits(folder: Path, setting: str, listed: list[str]) -> bool:
    """Whether the last key of a list was added, and is not promoted yet.

    A promotion that broke off leaves its marker, and the key may come to be the only one.
    """
    return len(listed) > 1 and _text(folder, _marker(setting)) == _digest(listed[-1])


def _marker(setting: str) -> str:
    return f"{setting.lower()}{_ADDED}"


def _digest(key: str) -> str:
    return hashlib.sha256(f"order-fellow added key\0{key}".encode()).hexdigest()


def _text(folder: Path, name: str) -> str | None:
    if not folder.is_dir():
        raise KeysError(f"There is no folder {folder}: `keys write` makes it.")
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{folder} is not whole: {error}") from error


def _empty(folder: Path, names: list[str]) -> str:
    return (
        f"{', '.join(str(folder / name) for name in names)}: empty, and nothing was changed. "
        "Put back what was there, from your copy."
    )


def _put(folder: Path, texts: Mapping[str, str]) -> None:
    try:
        secret_files.put(folder, texts)
    except secret_files.BrokenOffError as error:
        raise KeysError(str(error)) from error
    except OSError as error:
        raise KeysError(
            f"{folder} cannot be written, and all in it is as it was: {error}"
        ) from error


def _content(name: str, values: Mapping[str, str]) -> str:
    if name == "service_passwords":
        named = {one: values.get(f"{one.upper()}_PASSWORD") for one in BROKER_USERS}
        return ",".join(f"{one}={password}" for one, password in named.items() if password)
    if name == "rabbitmq.conf":
        return f"default_user = fellow\ndefault_pass = {values['RABBITMQ_PASSWORD']}"
    return values.get(name.upper(), "")


def _key(setting: str) -> str:
    if setting == "JWT_SIGNING_KEY":
        return secrets.token_urlsafe(48)
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
