"""What a suite found: as a table, and as a file that the pictures are made from."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.contest import Result, number

RESULTS = Path(__file__).with_name("results")


def show(result: Result, console: Console) -> None:
    """Print medians, spread and ratios; then what had to be reached."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for heading in ("median", "unit", "spread", "ratio"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    first: dict[str, float] = {}
    for series in result.series:
        base = first.setdefault(series.unit, series.median)
        ratio = f"{series.median / base:.2f}" if base else ""
        table.add_row(
            series.contender, number(series.median), series.unit, f"{series.spread:.0%}", ratio
        )
    console.print(table)
    for check in result.checks:
        mark = "[green]reached[/]" if check.reached else "[red]MISSED[/] "
        console.print(f"  {mark} {check.what}: {check.found} (wanted: {check.wanted})")
    for sentence in result.counted:
        console.print(f"  {sentence}")


def write(result: Result) -> None:
    """Write `bench/results/<suite>.json`."""
    RESULTS.mkdir(exist_ok=True)
    found = {"suite": result.suite, "machine": machine(), "commit": _commit()} | result.as_json()
    found["at"] = datetime.now(UTC).isoformat(timespec="seconds")
    (RESULTS / f"{result.suite}.json").write_text(json.dumps(found, indent=1) + "\n")


def machine() -> str:
    """This machine, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ("git", "describe", "--always", "--dirty"), capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
