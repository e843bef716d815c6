"""Reading the environment: from variables and files to typed values, all faults at once."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import inspect

from shared.validation.words import must_be, shortened

S = TypeVar("S", bound=msgspec.Struct)


class ConfigurationError(Exception):
    """The environment describes no system that may start; a line for each thing to change.

    Args:
        faults: a sentence each, in which a setting is named.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def given(
    environ: Mapping[str, str],
    names: Collection[str],
    secret: Collection[str],
    optional: Collection[str],
    faults: list[str],
) -> dict[str, str]:
    """The variables that are set to something, by name.

    Args:
        environ: environment variables.
        names: of those that count.
        secret: of those that may be given as `NAME_FILE`, the path of a file that holds it.
        optional: of those whose file may hold nothing, which is to have none.
        faults: what cannot be read is added here.
    """
    found: dict[str, str] = {}
    for name in names:
        value = environ.get(name, "")
        path = environ.get(f"{name}_FILE", "") if name in secret else ""
        if path and value:
            faults.append(f"{name} and {name}_FILE are both set: set one of them")
        elif path:
            try:
                value = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{name}_FILE cannot be read: {error}")
            else:
                # Not as if it were not set: its content was lost, or is only being written.
                if not value and name not in optional:
                    faults.append(f"{name}_FILE is empty: put back what {path} held")
        if value:
            found[name] = value
    return found


def addresses(urls: str) -> tuple[str, ...]:
    """The addresses of a broker, one or several separated by `;`, as kombu and others write them.

    Args:
        urls: at least one.
    """
    found = tuple(url.strip() for url in urls.split(";") if url.strip())
    return found or (urls,)


def with_passwords(
    values: Mapping[str, str], servers: Collection[str], faults: list[str]
) -> dict[str, str]:
    """The values, each `NAME_PASSWORD` of a server put into its `NAME_URL`.

    Args:
        values: as from `given`.
        servers: the names.
        faults: an address that can take no password is added here.
    """
    found = dict(values)
    for server in servers:
        password, url = found.get(f"{server}_PASSWORD"), found.get(f"{server}_URL", "")
        if not password:
            continue
        urls = addresses(url) if server == "AMQP" else (url,)
        if any(map(is_unreadable, urls)):
            continue  # which is said of the address itself
        if not all(urlsplit(each).username and not urlsplit(each).password for each in urls):
            faults.append(
                f"{server}_URL must name a user and no password where its password is given apart"
            )
            continue
        found[f"{server}_URL"] = ";".join(_with_password(each, password) for each in urls)
    return found


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, _, host = parts.netloc.partition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()


def is_unreadable(url: str) -> bool:
    """Whether nothing can be read from an address (RFC 3986), such as one with a bare / in it."""
    try:
        urlsplit(url).port  # noqa: B018 - it is parsed when it is asked for
    except ValueError:
        return True
    return False


def typed(
    values: Mapping[str, str], settings: type[S], secret: Collection[str], faults: list[str]
) -> S:
    """The settings that values describe; one that is no good has its default.

    Args:
        values: by the names that the fields have in the environment.
        settings: the type; each field has a default.
        secret: the names of those whose value is not said again.
        faults: what is no good is added here.
    """
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(settings):
        name = field.encode_name
        if name not in values:
            continue
        try:
            found[field.name] = msgspec.convert(values[name], field.type, strict=False)
        except msgspec.ValidationError:
            is_said = "" if name in secret else f", not {shortened(values[name])}"
            faults.append(f"{name} must be {must_be(inspect.type_info(field.type))}{is_said}")
    return settings(**found)
