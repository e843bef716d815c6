"""A pytest plugin: a run fails unless every test that was collected ran, once, under its own id.

pytest-xdist hands tests out by id, so of several with equal ids it runs one, and says "passed".
"""

from collections import Counter

import pytest

# What pytest-xdist reports for the test that a worker died in, which never finishes.
CRASHED = "???"


class AllRan:
    """Compares what was collected with what ran, in the process that reports."""

    def __init__(self) -> None:
        self._collected: list[str] = []
        self._ran: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = [item.nodeid for item in session.items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        self._collected = list(ids)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._ran.add(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == CRASHED:
            self._ran.add(report.nodeid)

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
                f"{len(self._ran)} of {len(self._collected)} collected tests ran", red=bool(faults)
            )

    def _faults(self) -> list[str]:
        faults = [
            f"{times} tests have the id {id_}: give each its own"
            for id_, times in Counter(self._collected).items()
            if times > 1
        ]
        if self._ran != set(self._collected):
            faults.append("Not every collected test ran: this run says nothing about the others.")
        return faults


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(AllRan())
