"""Runs linters, types and tests beside each other, and the few tests that failed once more, alone.

    python .ci/run_tests.py                                # all: `make test`
    python .ci/run_tests.py waiting --durations=25         # one part, with arguments for pytest

Three parts: `check`; tests that compute, a lane a core; and tests that mostly wait for servers, leases and
processes, in more lanes than that. A lane takes file after file (tests/conftest.py), and torch has one thread in
each. All lanes are forked from one process, since imports are 8 CPU s (tests/support/forking/zygote.py). What the
tests that wait print comes when they are done.

A test may fail because of what runs beside it: on a busy machine a process starts late. Up to MOST_AGAIN failed
tests run a second time, when all parts are done, one after the other. One that fails again fails the run; one that
passes is named, with its first error. A run that broke (a lane ended, a file could not be collected, any status of
pytest but 1) has no second one.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MAKE = os.environ.get("MAKE", "make")
BIN = Path(sys.executable).parent
FOLDER = Path(".pytest_cache")
"""Holds a cache and a file of outcomes for each part."""

WAITING = [
    "tests/faults",
    "tests/browser",
    "tests/e2e",
    *(
        f"tests/integration/{each}"
        for each in ("bulk", "cli", "client", "gateway", "job", "sources")
    ),
]
FORKING = Path(__file__).parents[1] / "tests/support/forking"
LANE = f"popen//python={shlex.join([sys.executable, '-IS', str(FORKING / 'lane.py')])}"
SOCKET_VARIABLE = "TESTS_ZYGOTE"
PYTEST_PARTS: dict[str, list[str]] = {
    "waiting": ["--dist=load", f"--tx=4*{LANE}", "-p", "no:schemathesis", *WAITING],
    "computing": ["--dist=load", f"--tx=2*{LANE}", *(f"--ignore={each}" for each in WAITING)],
}
CHECK = "check"
MOST_AGAIN = 5
"""More failed tests than that are a defect, not a busy machine."""

TESTS_FAILED = 1
"""Pytest's status when it ran to its end and tests failed; any other but 0 says that it did not."""


@dataclass(frozen=True)
class Outcome:
    """Exit status and failed tests of a part."""

    status: int
    failed: Mapping[str, str] = field(default_factory=dict)
    """Test -> first line of its error."""

    passed: Collection[str] = ()
    """Tests whose call passed; their teardown may have failed."""


def main(arguments: Sequence[str]) -> int:
    known = [CHECK, *PYTEST_PARTS]
    named = list(itertools.takewhile(known.__contains__, arguments))
    options = arguments[len(named) :]
    with fork_server():
        return judge(run_parts(named or known, options), options)


@contextmanager
def fork_server() -> Iterator[None]:
    """Runs the process that the lanes of all parts are forked from, and the workers that tests start."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-P", FORKING / "zygote.py", f"{folder}/socket"]
        process = subprocess.Popen(program, env=make_environ(), stdin=subprocess.PIPE)
        outer = os.environ.get(SOCKET_VARIABLE)  # a test runs this script
        os.environ[SOCKET_VARIABLE] = f"{folder}/socket"
        try:
            yield
        finally:
            os.environ.pop(SOCKET_VARIABLE)
            if outer is not None:
                os.environ[SOCKET_VARIABLE] = outer
            process.communicate()


def run_parts(parts: Sequence[str], options: Sequence[str]) -> dict[str, Outcome]:
    """Runs the parts beside each other; the output of tests that wait is printed at the end, unless alone."""
    outcomes = {}
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        later = "waiting" if len(parts) > 1 else None
        started = {
            part: subprocess.Popen([MAKE, "--no-print-directory", CHECK])
            if part == CHECK
            else start_pytest(
                part, [*PYTEST_PARTS[part], *options], said if part == later else None
            )
            for part in parts
        }
        for part, process in started.items():
            outcomes[part] = read_outcome(part, process.wait())
        said.seek(0)
        print(said.read(), end="", flush=True)
    return outcomes


def start_pytest(
    name: str, arguments: Sequence[str], output: object = None
) -> subprocess.Popen[bytes]:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcomes.json").unlink(missing_ok=True)
    kept = ["--failures", str(folder / "outcomes.json"), "-o", f"cache_dir={folder}"]
    # A lane's anyio is not rewritten: it has no assertion of ours.
    kept += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return subprocess.Popen(
        [str(BIN / "pytest"), "--no-loadscope-reorder", *kept, *arguments],
        env=make_environ(),
        stdout=output,  # type: ignore[arg-type]
        stderr=subprocess.STDOUT,
    )


def make_environ() -> dict[str, str]:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Else each lane, and each process that a test starts, compiles all modules: 9 of the 22 CPU s of collecting.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


def read_outcome(part: str, status: int) -> Outcome:
    try:
        found = json.loads((FOLDER / part / "outcomes.json").read_text())
    except FileNotFoundError:  # no tests, or pytest ended before it could write
        return Outcome(status)
    return Outcome(status, found["failed"], found["passed"])


def judge(outcomes: Mapping[str, Outcome], options: Sequence[str]) -> int:
    """Returns the run's exit status; few failed tests get a second run before."""
    if not any(outcome.status for outcome in outcomes.values()):
        return 0
    if reason := find_breakage(outcomes):
        print(f"\nFAILED: {reason}; no second run", flush=True)
        return 1
    first = {test: why for each in outcomes.values() for test, why in each.failed.items()}
    print(f"\n{len(first)} failed; a second run of them, alone, one after the other:", flush=True)
    process = start_pytest("again", [*options, "-n", "0", *first])
    second = read_outcome("again", process.wait())
    good = 0
    for test, why in first.items():
        if test in second.failed:
            verdict = "FAILED TWICE"
        elif test in second.passed:
            verdict, good = "FAILED BESIDE OTHERS, NOT ALONE", good + 1
        else:
            verdict = "FAILED, AND WAS NOT RUN AGAIN"
        print(f"{verdict} {test}: {why}", flush=True)
    if second.status == 0 and good == len(first):
        return 0
    print(f"FAILED: {good} of {len(first)} passed in the second run", flush=True)
    return 1


def find_breakage(outcomes: Mapping[str, Outcome]) -> str | None:
    """Returns why a second run of tests could not make this one good, or None."""
    for part, outcome in outcomes.items():
        if outcome.status != 0 and (part == CHECK or outcome.status != TESTS_FAILED):
            return f"{part} ended with status {outcome.status}"
        if outcome.status == TESTS_FAILED and not outcome.failed:
            return f"{part} failed without a failed test"
    failed = sum(len(outcome.failed) for outcome in outcomes.values())
    if failed > MOST_AGAIN:
        return f"{failed} tests failed, and more than {MOST_AGAIN} are not a busy machine's doing"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
