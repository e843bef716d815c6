"""`fellow`, run as a program: a process of its own, with its own environment and streams.

Each is forked from a process that has imported the program already. That is nine tenths of what a
short command costs, and the tests run over a hundred.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from tests.integration.arrange import PATIENCE
from tests.zygote.forks import Fork, Zygote

# And what it imports once it has something to do: typer's way to pydantic, which is here for other
# tests, is half of a short command.
_fellow = Zygote(
    (
        "services.ops.cli",
        "kombu.transport.pyamqp",
        "psycopg2.extras",
        "pydantic.fields",
        "pydantic.type_adapter",
        "rich._emoji_codes",
        "typer._adapters",
        "typer.rich_utils",
    )
)


def run_fellow(
    arguments: tuple[str, ...], environment: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, str, str]:
    """Run `fellow`; its exit code, standard output and standard error."""
    with TemporaryDirectory() as made:
        given, out, err = (Path(made) / stream for stream in ("stdin", "stdout", "stderr"))
        given.write_bytes(stdin)
        with ExitStack() as opened:
            files = [
                opened.enter_context(path.open(mode))
                for path, mode in ((given, "rb"), (out, "ab"), (err, "ab"))
            ]
            process = _fellow.start(
                "services.ops",
                *arguments,
                environment=environment,
                streams=[file.fileno() for file in files],
            )
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return code, out.read_text(), err.read_text()


@contextmanager
def fellow_that_goes_on(
    arguments: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator[tuple[Fork, TextIO]]:
    """Start `fellow`; its process, and what it writes to standard output, to be read meanwhile."""
    reader, writer = os.pipe()
    with open(reader) as written:
        with open(writer, "w") as out, open(os.devnull, "r+") as nothing:
            process = _fellow.start(
                "services.ops",
                *arguments,
                environment=environment,
                streams=[nothing.fileno(), out.fileno(), nothing.fileno()],
            )
        yield process, written
