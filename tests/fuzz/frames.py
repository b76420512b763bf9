"""Damages thousands of videos and checks the frames that sampling gets from them.

    python tests/fuzz/frames.py [--files 5000] [--seed 1] [--lanes 1] [--json]
    python tests/fuzz/frames.py --seed 1 --only 17 --keep clip.mkv

A file is one of the intact clips of `clips` (13 containers, 11 codecs, numbers burnt into the
pictures) after one or two kinds of `damage`: bits, blocks, headers, packets, cuts, splices. Five
calls of `sample_frames` on it run in a process of their own, a plain decoding of the whole file
in another. `verdict` says what is right and what is wrong, and how a frame is known to be wrong.
A process that dies is a crash; one that gives no answer long after its own deadline is a hang;
memory or descriptors that grow with the files are a leak.

Exits with 0 if no crash, hang, leak, unexpected exception or wrong frame was found.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.clips import write_clips
from fuzz.damage import damaged
from fuzz.lane import THROUGH, Lane, Outcome
from fuzz.report import Report

__all__ = ["fuzz", "main"]


def fuzz(
    numbers: Sequence[int],
    seed: int,
    *,
    through: str = "decoders",
    lanes: int = 1,
    wall_s: float = 3600.0,
    progress: bool = False,
) -> Report:
    """Runs these files, several at a time in `lanes`.

    Files not begun within `wall_s` are left out, and are then missing in the report.
    """
    report = Report(seed, len(numbers), through)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="videoqa-fuzz-") as name, ExitStack() as stack:
        sound = write_clips(Path(name))
        opened = [stack.enter_context(Lane(Path(name), through)) for _ in range(lanes)]
        for lane in opened:
            lane.learn(sound)
        for outcome, number in _outcomes(numbers, seed, sound, opened, began + wall_s):
            report.add(outcome, number)
            report.seconds = time.monotonic() - began
            if progress and report.files % 20 == 0:
                _show_progress(report)
    return report


def _outcomes(
    numbers: Sequence[int],
    seed: int,
    sound: Mapping[str, bytes],
    lanes: Sequence[Lane],
    deadline: float,
) -> Iterator[tuple[Outcome, int]]:
    done: SimpleQueue[tuple[Outcome, int] | None] = SimpleQueue()
    waiting = iter(numbers)  # `next` on it is atomic

    def work(lane: int) -> None:
        try:
            while time.monotonic() < deadline and (number := next(waiting, None)) is not None:
                done.put((lanes[lane].run(damaged(number, seed, sound)), lane))
        finally:
            done.put(None)

    with ThreadPoolExecutor(len(lanes)) as pool:
        workers = [pool.submit(work, lane) for lane in range(len(lanes))]
        ended = 0
        while ended < len(lanes):
            if (item := done.get()) is None:
                ended += 1
            else:
                yield item
        for worker in workers:
            worker.result()


def _show_progress(report: Report) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items() if count)
    print(f"\r{report.files}/{report.asked_files}: {counts} ", end="", file=sys.stderr, flush=True)


def show_one(number: int, seed: int, through: str, keep: Path | None) -> bool:
    """Makes one file again, runs it and prints all about it; returns True if there is no fault."""
    with tempfile.TemporaryDirectory(prefix="videoqa-fuzz-") as name:
        sound = write_clips(Path(name))
        file = damaged(number, seed, sound)
        if keep is not None:
            keep.write_bytes(file.data)
        with Lane(Path(name), through) as lane:
            lane.learn(sound)
            outcome = lane.run(file)
    print(f"file {number}: {file.clip.name}, {len(file.data)} bytes, damage: {file.kinds}")
    if outcome.reference is not None:
        reference = outcome.reference
        print(f"reference: {len(reference.pictures)} pictures, {reference.errors} errors")
        for time_s, seen in reference.timed():
            print(f"  {time_s:.4f} s, number {seen.number}, index {sorted(seen.indices)}"
                  + (", corrupt" if seen.corrupt else ""))  # fmt: skip
    for call in outcome.sampled.given if outcome.sampled else ():
        print(f"{call.ask}: {call.refused or call.unexpected or call.duration_s} {call.text}"
              f" {' '.join(call.warnings)}")  # fmt: skip
        for p in call.pictures:
            print(f"  {p.pts_s:.4f} s, number {p.number}, index {p.index}, exact {p.exact}")
    print(f"{outcome.verdict.name}: {outcome.verdict.why}")
    report = Report(seed, 1, through)
    report.add(outcome)
    return report.sound


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=1, help="pairs of processes at once")
    parser.add_argument("--through", choices=sorted(THROUGH), default="decoders")
    parser.add_argument("--wall-s", type=float, default=3600.0, help="start no file after this")
    parser.add_argument("--json", action="store_true", help="print one object with the counts")
    parser.add_argument("--only", type=int, metavar="N", help="run file N alone and show it all")
    parser.add_argument("--keep", type=Path, metavar="PATH", help="with --only: write the file")
    given = parser.parse_args()
    if given.only is not None:
        return 0 if show_one(given.only, given.seed, given.through, given.keep) else 1
    report = fuzz(
        range(given.files),
        given.seed,
        through=given.through,
        lanes=given.lanes,
        wall_s=given.wall_s,
        progress=True,
    )
    print(file=sys.stderr)
    print(json.dumps(report.as_json(), indent=2) if given.json else report.text())
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
