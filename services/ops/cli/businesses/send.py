"""`fellow send`: signs and sends a file of orders, with a progress bar and a summary."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from services.ops.send.sender import ProxyError, Sender, Summary
from shared.intake import csv_files, order_files
from shared.intake.csv_files import Failed, FileError
from shared.intake.order_files import Format, Line
from shared.security.webhook_keys import PREFIX, TEST_PREFIX

SECRET_VARIABLE = "WEBHOOK_SECRET"  # noqa: S105 - its name
SHOWN_FAILURES = SHOWN_WARNINGS = 5

_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def send(
    file: Annotated[
        str,
        typer.Argument(
            help="JSON lines, a JSON array or CSV (columns: "
            f"{', '.join(csv_files.COLUMNS)}); - for standard input."
        ),
    ],
    url: Annotated[
        str, typer.Option(envvar="API_URL", help="The API, without a path.")
    ] = "http://127.0.0.1:8000",
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the webhook secret; without it, {SECRET_VARIABLE}."),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=500, help="Concurrent requests.")] = 8,
    rate: Annotated[float, typer.Option(min=0, help="Orders a second at most; 0: no limit.")] = 0,
    failures: Annotated[
        Path | None,
        typer.Option(help="Where to write the orders not accepted; default: beside FILE."),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(
            help="Identifies the file, so that a corrected one can be sent again without "
            "duplicates; default: its content."
        ),
    ] = "",
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Default: guessed.")
    ] = None,
) -> None:
    """Sign and send a file of orders. Sending it again makes no duplicates.

    Orders answered 429 or 503 are retried. Orders not accepted are written to a file that this
    command takes, too. Exit code 0: all accepted; 1: not all; 2: a wrong command line or file.
    """
    secret = _secret(key_file)
    lines = _lines(file, file_format, batch)
    _check_url(url)
    path = _writable(failures, file)
    summary = _run(lines, url, secret, connections, rate)
    _print(summary)
    if summary.failures:
        failed = "".join(
            f"{order_files.failed_line(f.line, Failed(f.code, f.error, f.line.key))}\n"
            for f in summary.failures
        )
        try:
            path.write_text(failed, encoding="utf-8")
            _say(f"Those not accepted are in {path}: correct them there, then fellow send {path}")
        except OSError as error:
            print(failed, end="")
            _say(f"Those not accepted are above, since they cannot be written: {error}")
        raise typer.Exit(1)


def _run(lines: list[Line], url: str, secret: str, connections: int, rate: float) -> Summary:
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as shown:
        task = shown.add_task("", total=len(lines), note="")

        def progress(so_far: Summary) -> None:
            failed = len(so_far.failures)
            note = f"{failed} failed" if failed else ""
            shown.update(task, completed=so_far.accepted + failed, note=note)

        try:
            sender = Sender(url, secret, connections=connections, rate=rate, progress=progress)
        except ProxyError as error:
            raise _wrong(
                f"The proxy that https_proxy or all_proxy names cannot be used: {error}"
            ) from None

        async def main() -> Summary:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, sender.stop, "you stopped it")
            return await sender.send(lines)

        return asyncio.run(main())


def _print(summary: Summary) -> None:
    """Print the summary to standard output."""
    rate = summary.accepted / summary.seconds if summary.seconds else 0.0
    print(f"{summary.accepted:>9} accepted ({rate:,.0f} orders/s)")
    for code, count in sorted(summary.refused.items()):
        print(f"{count:>9} {code}")
    if summary.retries:
        print(f"{summary.retries:>9} sent again")
    if summary.latencies:
        print(f"latency: p50 {summary.latency(0.5):.3f} s, p99 {summary.latency(0.99):.3f} s")
    for sentence, count in summary.warned.most_common(SHOWN_WARNINGS):
        _say(f"{sentence} ({count} order{'' if count == 1 else 's'})")
    for failure in summary.failures[:SHOWN_FAILURES]:
        _say(f"line {failure.line.number}: {failure.code}: {failure.error}")


def _secret(key_file: Path | None) -> str:
    try:
        text = (
            key_file.read_text(encoding="utf-8")
            if key_file
            else os.environ.get(SECRET_VARIABLE, "")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"The secret cannot be read: {error}") from None
    secret = text.strip()
    if not secret.startswith((PREFIX, TEST_PREFIX)) or not secret.isascii():
        where = f"In {key_file}" if key_file else f"In {SECRET_VARIABLE} (or --key-file)"
        raise _wrong(
            f"{where} must be the webhook secret: it begins with whsk_, or whtk_ in test mode."
        )
    return secret


def _lines(file: str, file_format: Format | None, batch: str) -> list[Line]:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise _wrong(f"The file cannot be read: {error}") from None
    try:
        lines = order_files.read(content, file_format or order_files.guess(file, content), batch)
    except FileError as error:
        raise _wrong(f"{file} cannot be sent: {error}.") from None
    if not lines:
        raise _wrong(f"There are no orders in {file}.")
    return lines


def _writable(failures: Path | None, file: str) -> Path:
    """Return where to write failures, checked before sending: their loss would be noticed late."""
    try:
        path = failures or _free(file)
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise _wrong(f"What is not accepted could not be kept: {error}. Use --failures.") from None
    return path


def _check_url(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise _wrong(f"--url must be like https://api.example, and not {url}")


def _free(file: str) -> Path:
    """Return an unused name beside the file."""
    base = "orders" if file == "-" else file.removesuffix(".jsonl")
    path, number = Path(f"{base}.failed.jsonl"), 1
    while path.exists():
        number += 1
        path = Path(f"{base}.failed-{number}.jsonl")
    return path


def _wrong(sentence: str) -> typer.Exit:
    _say(sentence)
    return typer.Exit(2)


def _say(sentence: str) -> None:
    _console.print(sentence)
