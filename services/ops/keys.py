"""New keys and passwords: as lines for an env file, or as the files of `secrets/`."""

import base64
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shared.config.keys import KEY_BYTES
from shared.config.processes import KEYS
from shared.security.service_accounts import BROKER_USERS, is_operators

ADMINISTRATORS = ("rabbitmq", "postgres")
PASSWORDS = (*ADMINISTRATORS, *BROKER_USERS)
FILES = (
    *(name.lower() for name in KEYS),
    "smtp_password",
    "alert_webhook_url",
    *(f"{name}_password" for name in PASSWORDS),
    "service_passwords",
    "operator_passwords",
    "rabbitmq.conf",
)
"""What is in `secrets/`; docker-compose.yml gives each container its own of them."""
_OF_PASSWORDS = ("service_passwords", "rabbitmq.conf")
"""Files that repeat passwords of others."""
# Containers have users of their own; the folder keeps others out.
READABLE, PRIVATE = 0o444, 0o700


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
        made = Path(tempfile.mkdtemp(prefix=".secrets-", dir=folder.parent))
    except OSError as error:
        raise KeysError(f"{folder} cannot be made: {error}") from error
    try:
        for name in FILES:
            _put(made / name, _content(name, values))
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
        KeysError: there is no such password.
    """
    if name not in PASSWORDS:
        raise KeysError(f"{name} has no password; these have: {', '.join(PASSWORDS)}")
    try:
        values = _passwords(folder) | {f"{name.upper()}_PASSWORD": secrets.token_hex(24)}
        for file in (f"{name}_password", *_OF_PASSWORDS):
            _put(folder / file, _content(file, values))
    except OSError as error:
        raise KeysError(f"{folder} is not whole: {error}") from error


def complete(folder: Path) -> list[str]:
    """Make what a folder of an older version lacks; returns the names of the files.

    Args:
        folder: `secrets/`.

    Raises:
        KeysError: there is no such folder, or it cannot be written.
    """
    if not folder.is_dir():
        raise KeysError(f"There is no folder {folder}: `keys write` makes it.")
    lacking = [name for name in FILES if not (folder / name).exists()]
    try:
        values = generate() | _passwords(folder)
        for name in (*lacking, *(_OF_PASSWORDS if lacking else ())):
            _put(folder / name, _content(name, values))
    except OSError as error:
        raise KeysError(f"{folder} cannot be written: {error}") from error
    return lacking


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
    file = folder / "operator_passwords"
    try:
        listed = file.read_text().strip() if file.exists() else ""
        known = dict(one.split("=", 1) for one in listed.split(",") if "=" in one)
        known[name] = secrets.token_hex(24)
        _put(file, ",".join(f"{one}={password}" for one, password in known.items()))
    except OSError as error:
        raise KeysError(f"{folder} is not whole: {error}") from error
    return known[name]


def add(folder: Path, name: str) -> None:
    """Put a new key behind the others of a list: it opens and verifies, and nothing uses it yet.

    Args:
        folder: `secrets/`; one of an older version gets the list that it lacks.
        name: one of `KEYS`, in small letters too.

    Raises:
        KeysError: there is no such list.
    """
    setting = _setting(name)
    _write(folder, setting, [*_read(folder, setting), _key(setting)])


def promote(folder: Path, name: str) -> None:
    """Put the newest key of a list first: it seals or signs from the next start on.

    Args:
        folder: `secrets/`.
        name: as of `add`.

    Raises:
        KeysError: there is no such list, or no key to promote.
    """
    setting = _setting(name)
    *others, newest = _several(folder, setting)
    _write(folder, setting, [newest, *others])


def drop(folder: Path, name: str) -> None:
    """Take the oldest key of a list out, the last: what it sealed or signed is worth nothing then.

    Args:
        folder: `secrets/`.
        name: as of `add`.

    Raises:
        KeysError: there is no such list, or only one key in it.
    """
    setting = _setting(name)
    _write(folder, setting, _several(folder, setting)[:-1])


def _passwords(folder: Path) -> dict[str, str]:
    """Those that are there: a folder of an older version may lack some, until `complete`."""
    files = {name: folder / f"{name}_password" for name in PASSWORDS}
    return {
        f"{name.upper()}_PASSWORD": file.read_text().strip()
        for name, file in files.items()
        if file.exists()
    }


def _setting(name: str) -> str:
    if name.upper() not in KEYS:
        raise KeysError(f"{name} is no list of keys; these are: {', '.join(KEYS)}")
    return name.upper()


def _read(folder: Path, setting: str) -> list[str]:
    try:
        text = (folder / setting.lower()).read_text() if folder.is_dir() else None
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeysError(f"{folder} is not whole: {error}") from error
    if text is None:
        raise KeysError(f"There is no folder {folder}: `keys write` makes it.")
    return [key for part in text.split(",") if (key := part.strip())]


def _several(folder: Path, setting: str) -> list[str]:
    found = _read(folder, setting)
    if len(found) < 2:
        raise KeysError(f"{setting} lists {len(found)} key: add another first.")
    return found


def _write(folder: Path, setting: str, listed: list[str]) -> None:
    try:
        _put(folder / setting.lower(), ",".join(listed))
    except OSError as error:
        raise KeysError(f"{folder} cannot be written: {error}") from error


def _content(name: str, values: Mapping[str, str]) -> str:
    if name == "service_passwords":
        named = {one: values.get(f"{one.upper()}_PASSWORD") for one in PASSWORDS[2:]}
        return ",".join(f"{one}={password}" for one, password in named.items() if password)
    if name == "rabbitmq.conf":
        return f"default_user = fellow\ndefault_pass = {values['RABBITMQ_PASSWORD']}"
    return values.get(name.upper(), "")


def _put(path: Path, text: str) -> None:
    # In place: a container that runs goes on seeing this file, and not one that was moved here.
    if path.exists():
        path.chmod(0o644)
    path.write_text(f"{text}\n")
    path.chmod(READABLE)


def _key(setting: str) -> str:
    if setting == "JWT_SIGNING_KEY":
        return secrets.token_urlsafe(48)
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
