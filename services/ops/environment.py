"""Where the system is that the operator means."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.config.loading import load
from shared.config.settings import Settings

RUNNING = Path(__file__).resolve().parents[2] / ".stack" / "env"
"""What `make run` writes in this checkout while it runs."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The servers of one system.

    Attributes:
        settings: with `amqp_url` and, where `has_database`, `database_url`.
        has_database: whether the database's address is known, and not only defaulted.
    """

    settings: Settings
    has_database: bool


def find(environ: Mapping[str, str], running: Path = RUNNING) -> Surroundings:
    """The system of the environment or, when it names none, the one `make run` has started.

    The two are never mixed: a decision published to one system must not be looked for in another.

    Args:
        environ: the environment variables.
        running: the file of `NAME=value` lines that a running system leaves.

    Raises:
        ConfigurationError: a variable is no good.
    """
    variables = dict(environ)
    if not environ.get("AMQP_URL") and not environ.get("DATABASE_URL"):
        variables |= _read(running)
    # With neither, the defaults name one machine's usual ports, which go together.
    has_database = bool(variables.get("DATABASE_URL")) or not variables.get("AMQP_URL")
    return Surroundings(load(variables, "ops", needs_keys=False), has_database)


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
