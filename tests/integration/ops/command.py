"""`fellow`, run as a program: a process of its own, with its own environment and streams.

Each is forked from a process that has imported the program already. That is nine tenths of what a
short command costs, and the tests run over a hundred.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from services.ops.cli import app

TIMEOUT = 60.0
_STREAMS = ("stdin", "stdout", "stderr")
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([app.__module__, __name__])


def run_fellow(
    arguments: tuple[str, ...], environment: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, str, str]:
    """Run `fellow`; its exit code, standard output and standard error."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        for stream in _STREAMS:
            (folder / stream).write_bytes(stdin if stream == "stdin" else b"")
        process = _forks.Process(target=_fellow, args=(arguments, dict(environment), folder))
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        assert code is not None
        return code, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def _fellow(arguments: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(_STREAMS):
        mode = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_APPEND
        opened = os.open(folder / name, mode)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing has put another there
    app(arguments, prog_name="fellow")
