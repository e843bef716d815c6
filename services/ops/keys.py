"""New keys and passwords: as lines for an env file, or as the files of `secrets/`."""

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
from shared.security.service_accounts import BROKER_USERS, is_operators

ADMINISTRATORS = ("rabbitmq", "postgres")
PASSWORDS = (*ADMINISTRATORS, *BROKER_USERS)
GIVEN = ("smtp_password", "alert_webhook_url")
FILES = (
    *(name.lower() for name in KEYS),
    *GIVEN,
    *(f"{name}_password" for name in PASSWORDS),
    "service_passwords",
    "operator_passwords",
    "rabbitmq.conf",
)
"""What is in `secrets/`; docker-compose.yml gives each container its own of them."""
_OF_PASSWORDS = ("service_passwords", "rabbitmq.conf")
"""Files that repeat passwords of others."""
_ADDED = ".added"
"""Beside a list: which of its keys was added and not promoted yet."""


_UNFINISHED = ".secrets-"
"""What a folder begins with that is not whole yet."""


class KeysError(Exception):
    """It cannot be done; the message says why, and what to do."""


def generate() -> dict[str, str]:
    """Random values for everything in `docker-compose.yml` that must be secret."""
    return {name: _key(name) for name in KEYS} | {
        # In hexadecimal, since they stand in URLs.
        "RABBITMQ_PASSWORD": secrets.token_hex(24),
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        **{f"{name.upper()}_PASSWORD": secrets.token_hex(24) for name in BROKER_USERS},
    }


def write(folder: Path, known: Mapping[str, str]) -> None:
    """Make `secrets/`: whole, or not at all, and never over one that is there.

    Args:
        folder: to make; it belongs to whom the folder around it belongs to.
        known: keys and passwords that are there already, by the names of `generate`.

    Raises:
        KeysError: the folder is there, or cannot be made.
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
        # Onto an empty folder or none; the system refuses any other.
        made.replace(folder)
    except OSError as error:
        raise KeysError(f"{folder} cannot be made: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def change(folder: Path, name: str) -> None:
    """Put a new password into `secrets/`, in every file that has the old one.

    Args:
        folder: `secrets/`.
        name: one of `PASSWORDS`.

    Raises:
        KeysError: there is no such password, or the folder cannot be written, and is as it was.
    """
    if name not in PASSWORDS:
        raise KeysError(f"{name} has no password; these have: {', '.join(PASSWORDS)}")
    values = _passwords(folder, but=name) | {f"{name.upper()}_PASSWORD": secrets.token_hex(24)}
    if "RABBITMQ_PASSWORD" not in values:
        raise KeysError(f"{folder} lacks rabbitmq_password: `keys complete` makes it.")
    files = (f"{name}_password", *_OF_PASSWORDS)
    _put(folder, {file: _content(file, values) for file in files})


def complete(folder: Path) -> list[str]:
    """Make what a folder of an older version lacks; returns the names of the files.

    One that was put back from a copy becomes its owner's and readable to containers again, whose
    users are others.

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
        # Whole sets of keys, of a `write` that was killed: where the folder is there it is over.
        for left in folder.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
    except OSError as error:
        raise KeysError(f"{folder} is whole, and not as containers need it: {error}") from error
    return lacking


def give(folder: Path, name: str, value: str) -> None:
    """Put a secret into `secrets/` that somebody else has made.

    Args:
        folder: `secrets/`.
        name: one of `GIVEN`.
        value: one line; nothing takes away what was there.

    Raises:
        KeysError: there is no such secret, it is more than a line, or the folder is not whole.
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
    """Take an operator's password out of `secrets/`; the broker still has the user.

    Raises:
        KeysError: there is no such operator, or the folder is not whole.
    """
    known = _operators(folder)
    if known.pop(name, None) is None:
        raise KeysError(f"There is no operator {name}: there is {', '.join(known) or 'none'}.")
    _put_operators(folder, known)


def operator(folder: Path, name: str) -> str:
    """Give an operator a user of their own on the broker, or a new password; returns that.

    Args:
        folder: `secrets/`.
        name: theirs, as on the console.

    Raises:
        KeysError: it is no name, or the folder is not whole.
    """
    if not is_operators(name):
        raise KeysError(
            f"{name} is no operator's name: up to 64 small letters, digits, dots, underscores and "
            "hyphens, and no fellow_"
        )
    known = _operators(folder)
    known[name] = secrets.token_hex(24)
    _put_operators(folder, known)
    return known[name]


def add(folder: Path, name: str) -> None:
    """Put a new key behind the others of a list: it opens and verifies, and nothing uses it yet.

    Args:
        folder: `secrets/`; one of an older version gets the list that it lacks.
        name: one of `KEYS`, in small letters too.

    Raises:
        KeysError: there is no such list, or what was added to it is not promoted yet.
    """
    setting = _setting(name)
    listed, new = _read(folder, setting), _key(setting)
    if _waits(folder, setting, listed):
        raise KeysError(f"The last key of {setting} was added and is not promoted: promote it.")
    # A list of one key has none that could be promoted.
    marks = {_marker(setting): _digest(new)} if listed else {}
    _put(folder, {**marks, setting.lower(): ",".join([*listed, new])})


def promote(folder: Path, name: str) -> None:
    """Put the key that was added to a list first: it seals or signs from the next start on.

    Args:
        folder: `secrets/`.
        name: as of `add`.

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
    """Take the oldest key of a list out, the last: what it sealed or signed is worth nothing then.

    Args:
        folder: `secrets/`.
        name: as of `add`.

    Raises:
        KeysError: there is no such list, only one key in it, or the last is not promoted yet.
    """
    setting = _setting(name)
    listed = _several(folder, setting)
    if _waits(folder, setting, listed):
        raise KeysError(f"The last key of {setting} is its newest: promote it first.")
    _put(folder, {setting.lower(): ",".join(listed[:-1])})


def _passwords(folder: Path, but: str = "") -> dict[str, str]:
    """Those that are there: a folder of an older version may lack some, until `complete`."""
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
    """The keys of a list, none where a folder of an older version lacks it."""
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
        return (folder / name).read_text().strip()
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
        named = {one: values.get(f"{one.upper()}_PASSWORD") for one in PASSWORDS[2:]}
        return ",".join(f"{one}={password}" for one, password in named.items() if password)
    if name == "rabbitmq.conf":
        return f"default_user = fellow\ndefault_pass = {values['RABBITMQ_PASSWORD']}"
    return values.get(name.upper(), "")


def _key(setting: str) -> str:
    if setting == "JWT_SIGNING_KEY":
        return secrets.token_urlsafe(48)
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
