"""Estimate: the hours, frames, tokens and bytes of a run, from the headers of its videos alone.

Sums up what a `Probe` finds in each row. Only the worker's package can read videos, so the probe
comes from there by the entry point group `videoqa.probe`. Unknown values are left out, not guessed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol

from videoqa import errors
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.manifest import Manifest, Row
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.bulk.output.stored_rows import load_stored_rows
from videoqa.bulk.run.progress import ProgressReporter, RowCounts
from videoqa.bulk.run.row_plan import Planner, RowPlan
from videoqa.bulk.run.run import Options, make_planner
from videoqa.contract import JobRequest

__all__ = [
    "PROBES",
    "Estimate",
    "Probe",
    "ProbeResult",
    "RunPlan",
    "estimate_manifest",
    "installed_probe",
]

PROBES = "videoqa.probe"
"""Group of the entry points of probes."""
THREADS = 8
SHOWN = 20
"""Problems that are reported one by one."""


@dataclass(frozen=True)
class ProbeResult:
    """The facts that the headers of a row's inputs give."""

    known: bool = True
    """False: a header does not give the length of its video."""
    seconds: float = 0.0
    """Length of the clips together."""
    frames: int = 0
    """Frames that a model would see, unless the model's own processor sets another number."""
    fetched_bytes: int = 0
    """Bytes that a worker would fetch, by the files' indexes."""
    prompt_tokens: int | None = None
    """None: the model is not on this machine."""


class Probe(Protocol):
    """Reads the headers of a row's inputs; called from several threads."""

    def inspect(self, request: JobRequest) -> ProbeResult:
        """Opens each input; raises a SourceError or SamplingError, as a worker would."""
        ...


@dataclass
class RunPlan:
    """Numbers of rows by what a run would do about them."""

    new: int = 0
    """Rows that OUTPUT has nothing of."""
    done: int = 0
    """Rows whose result is there."""
    again: int = 0
    """Rows that have an outcome, and would be asked again."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows of `again` by reason; a row may have several."""
    failed: int = 0
    """Rows that failed before, and would not be asked again."""
    left_out: int = 0
    """Rows in no state that was asked for."""

    def add(self, plan: RowPlan) -> None:
        if plan.is_left_out:
            self.left_out += 1
        elif plan.state == "new":
            self.new += 1
        elif plan.is_asked:
            self.again += 1
            for reason in plan.reasons:
                self.reasons[reason] = self.reasons.get(reason, 0) + 1
        elif plan.state == "failed":
            self.failed += 1
        else:
            self.done += 1


@dataclass
class Estimate:
    """Sums over all rows that a run would ask."""

    videos: int = 0
    rows: int = 0
    """Rows that the run takes; the plan has each of them once."""
    plan: RunPlan = field(default_factory=RunPlan)
    hours: float | None = 0.0
    frames: int | None = 0
    prompt_tokens: int | None = 0
    fetched_bytes: int | None = 0
    unknown: int = 0
    """Rows with a video of unknown length: they count in no sum but that of the bytes."""
    failed: int = 0
    """Rows whose job would fail, as far as headers tell."""
    problems: list[str] = field(default_factory=list)
    """The first failures, as text."""
    note: str = ""

    def add(self, found: ProbeResult) -> None:
        self.fetched_bytes = (self.fetched_bytes or 0) + found.fetched_bytes
        if not found.known:
            self.unknown += 1
            return
        self.hours = (self.hours or 0.0) + found.seconds / 3600
        self.frames = (self.frames or 0) + found.frames
        known = self.prompt_tokens is not None and found.prompt_tokens is not None
        total = (self.prompt_tokens or 0) + (found.prompt_tokens or 0)
        self.prompt_tokens = total if known else None

    def add_failure(self, row: Row, error: errors.VideoQAError) -> None:
        self.failed += 1
        if len(self.problems) < SHOWN:
            self.problems.append(f"{row.custom_id}: {error.message} ({error.code})")


def estimate_manifest(
    manifest: Manifest,
    probe: AbstractContextManager[Probe] | None,
    progress: ProgressReporter,
    output: OutputDir,
    options: Options | None = None,
) -> Estimate:
    """Reads what OUTPUT holds, and the headers of the videos that a run would ask about; changes nothing.

    `probe`: see `installed_probe`.

    Raises:
        ManifestRefused: lines are wrong.
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT can't be read.
    """
    options = options or Options()
    with RowIndex() as index:
        found = Estimate(rows=manifest.check(index))
        load_stored_rows(output, index, None, readers=options.readers, note=progress.note)
        rows = _plan_rows(manifest, make_planner(index, options), found)
        if probe is None:
            found.hours = found.frames = found.prompt_tokens = found.fetched_bytes = None
            found.note = (
                "hours, frames, tokens and bytes are in the videos' headers, which only the worker's "
                "package can read; install it in your clone: pip install ./worker"
            )
            found.videos = sum(map(_count_videos, rows))
        else:
            with probe as opened:
                _add_headers(found, rows, opened, progress)
    found.rows -= found.plan.left_out
    return found


def _plan_rows(manifest: Manifest, planner: Planner, found: Estimate) -> Iterator[Row]:
    """Yields the rows that the run would ask, and counts all."""
    for row in manifest.rows():
        plan = planner.plan(row)
        found.plan.add(plan)
        if plan.is_asked:
            yield row


def _add_headers(
    found: Estimate, rows: Iterator[Row], probe: Probe, progress: ProgressReporter
) -> None:
    seen = 0
    with progress, ThreadPoolExecutor(THREADS) as pool:
        for row, result in _inspect_rows(rows, probe, pool):
            found.videos += _count_videos(row)
            try:
                found.add(result.result())
            except errors.VideoQAError as error:
                found.add_failure(row, error)
            seen += 1
            counts = RowCounts(total=found.rows, done=seen - found.failed, failed=found.failed)
            progress.update(counts, 0)


def _inspect_rows(
    rows: Iterator[Row], probe: Probe, pool: ThreadPoolExecutor
) -> Iterator[tuple[Row, Future[ProbeResult]]]:
    """Yields rows in order with their results to come, a few rows ahead of the caller."""
    ahead: deque[tuple[Row, Future[ProbeResult]]] = deque()
    for row in rows:
        ahead.append((row, pool.submit(probe.inspect, row.request)))
        if len(ahead) > 4 * THREADS:
            yield ahead.popleft()
    yield from ahead


def _count_videos(row: Row) -> int:
    return sum(item.kind == "video" for item in row.request.inputs)


def installed_probe(environ: Mapping[str, str]) -> AbstractContextManager[Probe] | None:
    """Returns the probe of the worker's package, or None where that is not installed."""
    for point in entry_points(group=PROBES):
        make: Callable[[Mapping[str, str]], Any] = point.load()
        return make(environ)  # type: ignore[no-any-return]
    return None
