"""The system that a command works on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.config.loading import load
from shared.config.settings import Settings

RUNNING = Path(__file__).resolve().parents[2] / ".stack" / "env"
"""Written by `make run` in this checkout while it runs."""


@dataclass(frozen=True, slots=True)
class Target:
    """The servers of one system.

    Attributes:
        settings: provides `amqp_url` and, if `has_database`, `database_url`.
        has_database: whether the database's address is configured, not a default.
    """

    settings: Settings
    has_database: bool


def find(environ: Mapping[str, str], running: Path = RUNNING) -> Target:
    """Return the system that the environment names, or else the one that `make run` started.

    The two are never mixed: the outcome of a command must be looked up where it was published.

    Args:
        environ: the environment variables.
        running: the file of `NAME=value` lines that a running system writes.

    Raises:
        ConfigurationError: a variable is invalid.
    """
    variables = dict(environ)
    if not environ.get("AMQP_URL") and not environ.get("DATABASE_URL"):
        variables |= _read(running)
    # Without both, the defaults are this machine's usual ports, which belong together.
    has_database = bool(variables.get("DATABASE_URL")) or not variables.get("AMQP_URL")
    return Target(load(variables, "ops", needs_keys=False), has_database)


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
