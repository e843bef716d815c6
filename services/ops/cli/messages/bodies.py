"""A message's new body: from a file, standard input or the operator's editor."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from services.ops.cli.terminal import MISUSED, say, stop

NewBody = Annotated[
    Path | None,
    typer.Option(help="A file with the new body, - for standard input; else $EDITOR opens."),
]


def read(file: Path, yes: bool) -> bytes:
    """Return the contents of a file, or of standard input for `-`; exits if it cannot be read.

    Args:
        file: the file.
        yes: whether no question follows, whose answer standard input could no longer give.
    """
    if str(file) == "-":
        if not yes:
            stop("--body - is standard input, which answers no question: say --yes, too.", MISUSED)
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        stop(f"{file} cannot be read: {error.strerror or error}.", MISUSED)


@contextmanager
def edited(text: str, is_wrong: Callable[[bytes], str]) -> Iterator[bytes]:
    """Let the operator edit a text; yields the new one for the duration of the context.

    The editor opens again while the text is wrong. If the context fails for any reason, the file
    with the text is kept, and its name printed.

    Args:
        text: the present text.
        is_wrong: returns a message about what is wrong with a new text; empty if it is right.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    folder = Path(tempfile.mkdtemp(prefix="fellow-"))  # mode 0700
    file = folder / "message.json"
    is_used = False
    try:
        file.write_bytes(text.encode())
        new = _run_editor(editor, file)
        while new != text.encode() and (wrong := is_wrong(new)):
            say(wrong)
            before, new = new, _run_editor(editor, file)
            if new == before:
                stop(f"Nothing was done. {wrong}")
        if new == text.encode():
            stop("Nothing was changed, and nothing done.")
        yield new
        is_used = True
    finally:
        if not is_used and file.exists() and file.read_bytes() != text.encode():
            say(f"Your text is in {file}: give it as --body.")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run_editor(editor: str, file: Path) -> bytes:
    try:
        ended = subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603
    except (OSError, ValueError) as error:
        stop(
            f"$EDITOR is {editor!r}, which cannot be run: {error}. Set it, or give the new body: "
            "--body FILE, or --body - --yes for standard input."
        )
    if ended.returncode != 0:
        stop(f"{editor} ended with {ended.returncode}; nothing was done.")
    try:
        new = file.read_bytes()
        new.decode()
    except (OSError, UnicodeDecodeError) as error:
        stop(f"What {editor} left cannot be read: {error}; nothing was done.")
    return new
