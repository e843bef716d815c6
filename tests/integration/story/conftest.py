"""A whole running system, seen from outside only: HTTP, AMQP, the mailbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from stack.system import System, system


@pytest.fixture(scope="module")
def running(module_amqp_url, module_database_url, tmp_path_factory) -> Iterator[System]:
    folder: Path = tmp_path_factory.mktemp("system")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMQP_URL", module_amqp_url)
        patch.setenv("DATABASE_URL", module_database_url)
        for name in ("PORT", "OPS_PORT", "PORTAL_PORT"):
            patch.delenv(name, raising=False)
        patch.setenv("SECRET_SCHEDULE_SECONDS", "0.5")
        with system("run", folder / "stack", Console(quiet=True)) as found:
            yield found
