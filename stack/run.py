"""`make run`: start everything and stay."""

import fcntl
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack.folders import hold_venv
from stack.processes import stop_on_signals
from stack.system import OPS_USER, STACK, CannotRunError, System, refuse_foreign, system

console = Console(soft_wrap=True)  # a command in a sentence is pasted whole


def main() -> int:
    """Run until Ctrl-C; returns the exit code."""
    try:
        refuse_foreign(STACK)
    except CannotRunError as error:
        return _refuse(error)
    STACK.mkdir(exist_ok=True)
    with (STACK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("[red]make run is running in this checkout already.[/]")
            return 1
        stop_on_signals()
        hold_venv()
        try:
            _run()
        except CannotRunError as error:
            return _refuse(error)
        except KeyboardInterrupt:
            console.print("Stopped.")
        return 0


def _refuse(error: CannotRunError) -> int:
    console.print(f"[red]Order Fellow cannot run:[/] {escape(str(error))}", highlight=False)
    return 1


def _run() -> None:
    written = STACK / "env"
    written.unlink(missing_ok=True)
    try:
        with system("run", STACK, console) as running:
            write_env(written, running.variables())
            _show(running)
            try:
                while True:
                    running.supervisor.watch()
                    running.servers.watch(_warn)
                    time.sleep(0.5)
            finally:
                written.unlink(missing_ok=True)
                console.print("Stopping ...")
    finally:
        written.unlink(missing_ok=True)


def _warn(text: str) -> None:
    console.print(f"[yellow]{text}[/]", highlight=False)


def write_env(path: Path, variables: dict[str, str]) -> None:
    """Write `NAME=value` lines, complete from the first moment that the file is there.

    Only the owner may read them: there are passwords among them.
    """
    unfinished = path.with_name(f".env-{os.getpid()}")
    unfinished.touch(mode=0o600)
    unfinished.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    unfinished.rename(path)


def _show(running: System) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("API and its docs", f"{running.api_url}/api/v1/docs/")
    password = running.ops_password or "whose password stays what it was"
    table.add_row("Ops console", f"{running.ops_url} as {OPS_USER}, {password}")
    table.add_row("Portal, for businesses", running.portal_url)
    table.add_row("Emails", str(running.mailbox / "new"))
    table.add_row("Logs", str(running.logs))
    table.add_row("Addresses for programs", str(STACK / "env"))
    table.add_row("Operators", ".venv/bin/fellow kyc approve EMAIL; .venv/bin/fellow queues")
    console.print("[green]Order Fellow is running.[/] Ctrl-C stops it.")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
