"""The body that a message is to have: from a file, standard input or the operator's editor."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from services.ops.cli.terminal import stop

NewBody = Annotated[
    Path | None,
    typer.Option(help="A file with the new body, - for standard input; else $EDITOR opens."),
]


def read(file: Path) -> bytes:
    """What a file holds, or standard input where it is named `-`."""
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


def edited(text: str) -> bytes:
    """What the operator's editor makes of a text; exits where it changes nothing, or fails."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "message.json"
        file.write_bytes(text.encode())
        try:
            ended = subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603
        except (OSError, ValueError) as error:
            stop(f"$EDITOR is {editor!r}, which cannot be run: {error}. Set it, or give --body.")
        if ended.returncode != 0:
            stop(f"{editor} ended with {ended.returncode}; nothing was done.")
        try:
            new = file.read_bytes()
            new.decode()
        except (OSError, UnicodeDecodeError) as error:
            stop(f"What {editor} left cannot be read: {error}; nothing was done.")
    if new == text.encode():
        stop("Nothing was changed, and nothing done.")
    return new
