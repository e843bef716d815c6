"""`fellow`, run as a program: a process of its own, with its own environment and streams.

Each is forked from a process that has imported the program already. That is nine tenths of what a
short command costs, and the tests run over a hundred.
"""

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.zygote.forks import Zygote

TIMEOUT = 60.0
_fellow = Zygote(("services.ops.cli",))


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
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return code, out.read_text(), err.read_text()
