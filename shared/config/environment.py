"""Reads environment variables and files into typed settings, and collects all faults."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import inspect

from shared.validation.phrases import must_be, shortened

S = TypeVar("S", bound=msgspec.Struct)


class ConfigurationError(Exception):
    """The configuration is invalid; the message has a line for each fault.

    Args:
        faults: a sentence each, with the name of the setting.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_values(
    environ: Mapping[str, str],
    names: Collection[str],
    secret: Collection[str],
    optional: Collection[str],
    faults: list[str],
) -> dict[str, str]:
    """Return the non-empty settings by name, from variables or from files.

    Args:
        environ: environment variables.
        names: of all settings.
        secret: names that may be given as `NAME_FILE`, the path of a file with the value.
        optional: names whose file may be empty, which means unset.
        faults: to which faults are appended.
    """
    found: dict[str, str] = {}
    for name in names:
        value = environ.get(name, "")
        path = environ.get(f"{name}_FILE", "") if name in secret else ""
        if path and value:
            faults.append(f"{name} and {name}_FILE are both set: set one of them")
        elif path:
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{name}_FILE cannot be read: {error}")
            else:
                # Not treated as unset: the content was lost or is still being written.
                if not value and name not in optional:
                    faults.append(f"{name}_FILE is empty: put back what {path} held")
        if value:
            found[name] = value
    return found


def addresses(urls: str) -> tuple[str, ...]:
    """Split the URLs of a broker, which are separated by `;` as in kombu.

    Args:
        urls: at least one.
    """
    found = tuple(url.strip() for url in urls.split(";") if url.strip())
    return found or (urls,)


def with_passwords(
    values: Mapping[str, str], servers: Collection[str], faults: list[str]
) -> dict[str, str]:
    """Return the values with each server's `NAME_PASSWORD` put into its `NAME_URL`.

    Args:
        values: from `read_values`.
        servers: prefixes of the names, such as `AMQP`.
        faults: to which faults are appended.
    """
    found = dict(values)
    for server in servers:
        password, url = found.get(f"{server}_PASSWORD"), found.get(f"{server}_URL", "")
        if not password:
            continue
        urls = addresses(url) if server == "AMQP" else (url,)
        if any(map(is_unreadable, urls)):
            continue  # the URL itself is reported later
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
    """Return whether a URL (RFC 3986) cannot be parsed, e.g. one with an unescaped / in it."""
    try:
        urlsplit(url).port  # noqa: B018 - the property parses it
    except ValueError:
        return True
    return False


def typed(
    values: Mapping[str, str], settings: type[S], secret: Collection[str], faults: list[str]
) -> S:
    """Convert values to settings; an invalid one keeps its default.

    Args:
        values: by environment variable.
        settings: the type, whose fields all have defaults.
        secret: names whose values are not quoted in faults.
        faults: to which faults are appended.
    """
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(settings):
        name = field.encode_name
        if name not in values:
            continue
        try:
            found[field.name] = msgspec.convert(values[name], field.type, strict=False)
        except msgspec.ValidationError:
            quoted = "" if name in secret else f", not {shortened(values[name])}"
            faults.append(f"{name} must be {must_be(inspect.type_info(field.type))}{quoted}")
    return settings(**found)
