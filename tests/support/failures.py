"""Writes down which tests failed, for a second run of those alone; a run that broke has a status of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

OPTION = "--failures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, type=Path, help="write what failed to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Listens in the process that starts the lanes, which hears of all of them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(config.getoption(OPTION)), "failures")


class _Failures:
    """Outcomes of a session: `{"failed": {test: first line of its error}, "passed": [test, ...]}`."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._failed: dict[str, str] = {}
        self._passed: list[str] = []
        self._broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.setdefault(report.nodeid, _find_message(report))
        elif report.passed and report.when == "call":
            self._passed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._broken.append(f"{report.nodeid or 'the tests'} could not be collected")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        """Hears from xdist that a lane ended."""
        if error is not None:
            self._broken.append(f"a lane ended: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Makes a failed test's status, 1, mean that and nothing more: a lane that ends is a failed test to xdist."""
        if self._broken and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
        ):
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        if self._path is not None:
            outcomes = {"failed": self._failed, "passed": self._passed}
            self._path.write_text(json.dumps(outcomes, indent=1))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason in self._broken:
            terminalreporter.write_line(f"BROKEN {reason}", red=True)


def _find_message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else report.longreprtext
    return next((line.strip() for line in message.splitlines() if line.strip()), "no message")
