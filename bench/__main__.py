"""`python -m bench [suite ...]`: run suites and write what they found."""

import importlib
import sys
import time

SUITES = ("ingress", "recorder", "relay", "notifier", "endtoend", "secrets", "fairness")


def main() -> int:
    for name in sys.argv[1:] or SUITES:
        started = time.monotonic()
        result = importlib.import_module(f"bench.{name}").run(print)
        for s in result.series:
            print(f"{s.contender:32} {s.median:12,.2f} {s.unit:10} +-{s.spread:.0%}")
        for c in result.checks:
            print("ok  " if c.reached else "MISS", c.what, c.wanted, c.found)
        print(f"{name}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
