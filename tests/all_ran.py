"""A pytest plugin: a run fails unless every test that there is ran, once, under its own id.

pytest-xdist hands tests out by id, so of several with equal ids it runs one, and says "passed".
What is deselected or skipped fails it too, unless that was typed, or is declared here.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

# What pytest-xdist reports for the test that a worker died in, which never finishes.
CRASHED = "???"
MAY_BE_SKIPPED = {"tests/faults/servers/test_disk.py"}
"""Files whose tests not every machine can run; each says why."""
CHOOSING = ("-k", "-m", "--deselect", "--ignore", "--lf", "--last-failed", "--sw", "--stepwise")
"""What is typed to run a part. The environment (PYTEST_ADDOPTS) is not typed."""
DROPPED = "dropped"


class Dropped:
    """What was collected and is not to be run, in a process that collects."""

    def __init__(self, config: pytest.Config) -> None:
        self.ids: list[str] = []
        # Nobody is asked about what lies in these.
        for path in (*(config.getoption("ignore") or ()), *(config.getoption("ignore_glob") or ())):
            self.ids.append(str(path))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.ids += [item.nodeid for item in items]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[DROPPED] = self.ids


class AllRan:
    """Compares what was collected with what ran, in the process that reports."""

    def __init__(self, typed: Sequence[str], dropped: Dropped) -> None:
        self._is_part = any(argument.startswith(CHOOSING) for argument in typed)
        self._dropped = dropped
        self._collected: list[str] = []
        self._ran: set[str] = set()
        self._skipped: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = [item.nodeid for item in session.items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        self._collected = list(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self._dropped.ids += getattr(node, "workeroutput", {}).get(DROPPED, ())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note_skipped(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._ran.add(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == CRASHED:
            self._ran.add(report.nodeid)
        # A failure that is expected is reported as skipped, and did run.
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note_skipped(report.nodeid)

    def _note_skipped(self, nodeid: str) -> None:
        if nodeid.partition("::")[0] not in MAY_BE_SKIPPED:
            self._skipped.add(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            self._ran = set(self._collected)
        if self._faults() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        faults = self._faults()
        for fault in faults:
            terminalreporter.write_line(fault, red=True)
        if not terminalreporter.config.option.collectonly:
            terminalreporter.write_line(
                f"{len(self._ran - self._skipped)} of {len(self._collected)} collected tests ran",
                red=bool(faults),
            )

    def _faults(self) -> list[str]:
        faults = [
            f"{times} tests have the id {id_}: give each its own"
            for id_, times in Counter(self._collected).items()
            if times > 1
        ]
        if self._ran != set(self._collected):
            faults.append("Not every collected test ran: this run says nothing about the others.")
        if self._skipped:
            faults.append(f"Skipped, and tests/all_ran.py does not say so: {_named(self._skipped)}")
        if self._dropped.ids and not self._is_part:
            faults.append(f"Left out, and nobody has typed it: {_named(set(self._dropped.ids))}")
        return faults


def _named(ids: set[str]) -> str:
    return ", ".join(sorted(ids)[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def pytest_configure(config: pytest.Config) -> None:
    dropped = Dropped(config)
    config.pluginmanager.register(dropped)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(AllRan(config.invocation_params.args, dropped))
