"""`python -m bench [suite ...]`: run suites, print what they found, write it to `bench/results/`.

Exit code 1 when a number was not reached.
"""

import importlib
import subprocess
import sys
import time

from rich.console import Console

from bench import report
from bench.environment import python
from stack.folders import ROOT, hold_venv
from stack.processes import stop_on_signals

SUITES = ("ingress", "recorder", "relay", "notifier", "latency", "secrets")
MORE = ("endtoend", "features", "fairness", "poison", "edge", "shops", "console", "disk", "workers")
"""Those of `bench.suites.by_name`."""


def main() -> int:
    """Run them, one after the other: two at once would measure each other."""
    names = sys.argv[1:] or list(SUITES)
    unknown = [name for name in names if name not in (*SUITES, *MORE)]
    if unknown:
        known = ", ".join((*SUITES, *MORE))
        print(f"There is no suite {unknown[0]}: there are {known}.", file=sys.stderr)
        return 2
    stop_on_signals()
    hold_venv()
    console = Console(highlight=False)
    python()  # what installing costs is not to be measured
    reached = True
    for name in names:
        console.print(f"\n[bold]{name}[/]")
        started = time.monotonic()
        room = "bench.suites.by_name" if name in MORE else "bench.suites"
        result = importlib.import_module(f"{room}.{name}").run(console.print)
        report.show(result, console)
        report.write(result)
        console.print(f"  ({time.monotonic() - started:.0f} s)")
        reached = reached and all(check.reached for check in result.checks)
    subprocess.run((python(), "-m", "bench.draw"), cwd=ROOT, check=True)
    return 0 if reached else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
