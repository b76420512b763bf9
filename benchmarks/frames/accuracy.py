"""Accuracy of pictures: videoqa and other readers on every kind of video of the tests, in one run.

    python benchmarks/frames/accuracy.py [--json] [--readers R ...] [--kinds SUBSTRING ...]
                                  [--peers-python /path/to/python]

Kinds are those of `tests/kinds`: clips with their numbers in the pictures. Each reader, in a
process of its own, is asked for 1, 4 and 8 pictures, uniform in time, and, counted apart, for
more than there are.

right   every picture is the one on screen at k * duration / n, the last with time <= instant
        (rounding by a millisecond, and a duration off by what the container cannot tell, are
        forgiven). The guide is held to what it means to return: every (total // n)-th picture.
        Of a file that breaks off: any uniform choice of what is there, fewer pictures, or an
        error; of what is no video: an error. If there are fewer than asked: each once will do
unsure  the same, but the reader says that they might not be (videoqa: the file's times cannot be
        trusted)
said    some are not, and each of these is marked as inexact
wrong   another picture came, or too few, and nothing said so
error   it raised, or gave nothing, on a video
hung    no answer within the time limit; crash: the process died

Peers are imported by `--peers-python`, by default this one; those missing are named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests", "benchmarks")]

from kinds import KINDS, Kind  # noqa: E402
from lib.accuracy_peers import MARK, MODULES, READERS  # noqa: E402
from support.videos import read_number  # noqa: E402

Judge = Callable[[Kind, list[int | None], list[int]], bool]
"""Says of each picture at these places of the answer whether it is right."""
COUNTS = (1, 4, 8)
ANSWER_LIMIT_S = 20
START_LIMIT_S = 120
VERSIONS = """
from importlib.metadata import version, PackageNotFoundError
import json
found = {}
for name in ("av", "opencv-python-headless", "torch", "torchcodec", "decord2"):
    try: found[name] = version(name)
    except PackageNotFoundError: pass
print(json.dumps(found))
"""


class Reader:
    """A process that answers, started anew after a crash or a hang."""

    def __init__(self, name: str, python: str) -> None:
        self.name = name
        self._command = [python, str(ROOT / "benchmarks" / "lib" / "accuracy_peers.py"), name]
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def ask(self, path: Path, count: int, out: Path) -> str:
        """Empty if pictures came; else the error, `hung` or `crash`."""
        process = self._process or self._start()
        assert process.stdin is not None
        request = {"path": str(path), "count": count, "out": str(out)}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._line(ANSWER_LIMIT_S)
        if answer in ("hung", "crash"):
            self.close()
        return answer

    def missing(self) -> str:
        """The reason why the reader cannot be used; empty if it can."""
        self._start()
        return "" if self._process else self._failure

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - the process writes to it
        self._process = process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env={**os.environ, "AV_LOG_LEVEL": "quiet", "OPENCV_LOG_LEVEL": "OFF"},
        )  # fmt: skip
        self._rest = b""
        if self._line(START_LIMIT_S) != "ready":
            self.close()
            errors.seek(0)
            self._failure = (errors.read().decode().strip().splitlines() or ["it died"])[-1]
        return process

    def _line(self, limit_s: float) -> str:
        process, deadline_s = self._process, time.monotonic() + limit_s
        assert process is not None
        assert process.stdout is not None
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                if line.startswith(MARK.encode()):
                    return line.decode("utf-8", "replace")[len(MARK) :]
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                return "hung"
            more = os.read(process.stdout.fileno(), 65536)
            if not more:
                return "crash"
            self._rest += more


def verdict(kind: Kind, name: str, count: int, error: str, out: Path) -> str:
    """One of the words of the module's docstring."""
    if error in ("hung", "crash"):
        return error
    numbers, exact = ([], []) if error else looked_at(out)
    if kind.refused:
        return "wrong" if numbers else "right"
    if not numbers:
        return "right" if kind.ends_early and error else "error"
    if len(numbers) != count:
        whole = count > len(kind.pictures) and numbers == list(kind.pictures)
        return "right" if whole or kind.ends_early else "wrong"
    return held_to(judge_of(kind, name), kind, numbers, exact)


def looked_at(out: Path) -> tuple[list[int | None], list[bool]]:
    with np.load(out) as found:
        keys = sorted(set(found.files) - {"exact"})
        return [number_or_none(found[key]) for key in keys], found["exact"].tolist()


def held_to(judge: Judge, kind: Kind, numbers: list[int | None], exact: list[bool]) -> str:
    sure = [at for at, known in enumerate(exact) if known]
    if not judge(kind, numbers, sure):
        return "wrong"
    if len(sure) == len(numbers):
        return "right"
    return "unsure" if judge(kind, numbers, list(range(len(numbers)))) else "said"


def judge_of(kind: Kind, name: str) -> Judge:
    if kind.ends_early:
        return is_some_choice
    return is_own_choice if name == "guide" else is_on_screen


def is_on_screen(kind: Kind, numbers: list[int | None], sure: list[int]) -> bool:
    instants = {at: at * kind.duration_s / len(numbers) for at in sure}
    return all(
        numbers[at] in {kind.pictures[place] for place in kind.places_at(at_s, kind.slack_s)}
        for at, at_s in instants.items()
    )


def is_some_choice(kind: Kind, numbers: list[int | None], sure: list[int]) -> bool:
    """A uniform one of the first pictures of the file, however many of them are there."""
    sizes = range(1, len(kind.pictures) + 1)
    return any(all(numbers[k] == k * size // len(numbers) for k in sure) for size in sizes)


def is_own_choice(kind: Kind, numbers: list[int | None], sure: list[int]) -> bool:
    """The guide means every (total // n)-th picture; by time that is right at even rates only."""
    steps = {b - a for a, b in pairwise(kind.shown_s)}
    step = len(kind.pictures) // len(numbers)
    return len(steps) < 2 and all(numbers[k] == kind.pictures[k * step] for k in sure)


def number_or_none(pixels: np.ndarray) -> int | None:
    try:
        return read_number(pixels)
    except (AssertionError, ValueError):
        return None


WORST_LAST = ("right", "unsure", "said", "error", "wrong", "hung", "crash")


def judge(reader: Reader, kind: Kind, path: Path, out: Path) -> dict[str, Any]:
    more = min(len(kind.pictures) + 5, 256)
    counts = [n for n in COUNTS if n <= len(kind.pictures)] + [more]
    found: dict[int, str] = {}
    errors: set[str] = set()
    for count in counts:
        error = reader.ask(path, count, out)
        found[count] = verdict(kind, reader.name, count, error, out)
        errors |= {error} - {""}
    worst = max((found[n] for n in counts[:-1]), key=WORST_LAST.index)
    return {"verdict": worst, "more": found[more], "by_count": found, "errors": sorted(errors)}


def chosen(patterns: Iterable[str]) -> Iterator[tuple[str, Kind]]:
    wanted = list(patterns)
    for name, kind in KINDS.items():
        if not wanted or any(pattern in name for pattern in wanted):
            yield name, kind


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = {}
        for at, (name, kind) in enumerate(chosen(arguments.kinds)):
            place = Path(folder) / str(at)
            place.mkdir()
            clips[name] = kind.make(place)
        for name in arguments.readers:
            reader = Reader(name, arguments.peers_python if name in MODULES else sys.executable)
            if why := reader.missing():
                missing[name] = why
                continue
            out = Path(folder) / "out.npz"
            for clip, path in clips.items():
                rows.setdefault(clip, {})[name] = judge(reader, KINDS[clip], path, out)
            reader.close()
            print(f"{name}: done", file=sys.stderr)
    return {"rows": rows, "missing": missing, "machine": machine(arguments.peers_python)}


def machine(peers_python: str) -> dict[str, Any]:
    output = subprocess.run([peers_python, "-c", VERSIONS], check=True, capture_output=True).stdout
    return {
        "python": platform.python_version(),
        "av": version("av"),
        "peers": json.loads(output),
        "date": time.strftime("%Y-%m-%d"),
    }


def sums(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    readers = list(next(iter(rows.values()), {}))
    return {
        reader: {
            word: sum(row[reader]["verdict"] == word for row in rows.values())
            for word in WORST_LAST
        }
        for reader in readers
    }


def print_table(found: dict[str, Any]) -> None:
    rows = found["rows"]
    readers = list(next(iter(rows.values()), {}))
    print(f"| kind | {' | '.join(readers)} |")
    print("|---" * (len(readers) + 1) + "|")
    for word in WORST_LAST:
        counts = (str(counts[word]) for counts in sums(rows).values())
        print(f"| **{word}, of {len(rows)} kinds** | {' | '.join(counts)} |")
    more = (str(sum(row[r]["more"] == "right" for row in rows.values())) for r in readers)
    print(f"| right if asked for more than there are | {' | '.join(more)} |")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row[reader]['verdict'] for reader in readers)} |")
    for reader, why in found["missing"].items():
        print(f"\n{reader}: left out, {why}")
    print(f"\n{json.dumps(found['machine'])}")
    only = better_elsewhere(rows)
    print(f"\nRight in another reader and not in videoqa: {json.dumps(only) if only else 'none'}")


def better_elsewhere(rows: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Kinds of which videoqa gives a wrong picture, with the readers that give none."""
    lacking = {
        name: [reader for reader, of in row.items() if of["verdict"] == "right"]
        for name, row in rows.items()
        if "videoqa" in row and row["videoqa"]["verdict"] not in ("right", "unsure")
    }
    return {name: readers for name, readers in lacking.items() if readers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--kinds", nargs="+", default=[], help="parts of kinds' names")
    parser.add_argument("--peers-python", default=sys.executable)
    found = run(parser.parse_args())
    if parser.parse_args().json:
        print(json.dumps({**found, "sums": sums(found["rows"])}))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
