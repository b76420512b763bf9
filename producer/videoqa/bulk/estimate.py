"""Estimate: what a run would take, from the headers of the videos alone.

Counts here; a `Probe` looks. Only the worker's package can read videos, so the probe comes from it by
the entry point group `videoqa.probe`. What is not known is not guessed.
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
from videoqa.bulk.manifest import Manifest, Row
from videoqa.bulk.progress import Tally, Watcher
from videoqa.bulk.scratch import Scratch
from videoqa.contract import JobRequest

__all__ = ["Estimate", "Probe", "Probed", "estimate", "installed_probe"]

GROUP = "videoqa.probe"
THREADS = 8
SHOWN = 20


@dataclass(frozen=True)
class Probed:
    """What the headers of a row's inputs say."""

    known: bool = True
    """False: a header does not say how long its video is."""
    seconds: float = 0.0
    """Of the clips together."""
    frames: int = 0
    """That a model would see, unless the model's own processor states another number."""
    fetched_bytes: int = 0
    """That a worker would fetch, by the files' indexes."""
    prompt_tokens: int | None = None
    """None: the model is not on this machine."""


class Probe(Protocol):
    """Looks at a row's inputs; called from several threads."""

    def look(self, request: JobRequest) -> Probed:
        """Raises a SourceError or SamplingError, as a worker would."""
        ...


@dataclass
class Estimate:
    """Sums over all rows."""

    videos: int = 0
    rows: int = 0
    hours: float | None = 0.0
    frames: int | None = 0
    prompt_tokens: int | None = 0
    fetched_bytes: int | None = 0
    unknown: int = 0
    """Rows with a video whose header does not say how long it is: not in hours, frames and tokens."""
    failed: int = 0
    """Rows whose job would fail, as far as headers tell."""
    problems: list[str] = field(default_factory=list)
    """The first of them, in words."""
    note: str = ""

    def add(self, found: Probed) -> None:
        self.fetched_bytes = (self.fetched_bytes or 0) + found.fetched_bytes
        if not found.known:
            self.unknown += 1
            return
        self.hours = (self.hours or 0.0) + found.seconds / 3600
        self.frames = (self.frames or 0) + found.frames
        known = self.prompt_tokens is not None and found.prompt_tokens is not None
        total = (self.prompt_tokens or 0) + (found.prompt_tokens or 0)
        self.prompt_tokens = total if known else None

    def refuse(self, row: Row, error: errors.VideoQAError) -> None:
        self.failed += 1
        if len(self.problems) < SHOWN:
            self.problems.append(f"{row.custom_id}: {error.message} ({error.code})")


def estimate(
    manifest: Manifest, opened: AbstractContextManager[Probe] | None, watcher: Watcher
) -> Estimate:
    """Looks at every row; submits and writes nothing.

    `opened`: see `installed_probe`.

    Raises:
        ManifestRefused.
    """
    with Scratch() as scratch:
        found = Estimate(rows=manifest.check(scratch))
    if opened is None:
        found.hours = found.frames = found.prompt_tokens = found.fetched_bytes = None
        found.note = (
            "hours, frames, tokens and bytes are in the videos' headers, which this machine "
            "can't read; install the worker in your clone: pip install ./worker"
        )
        found.videos = sum(_videos(row) for row in manifest.rows())
        return found
    seen = 0
    with opened as probe, watcher, ThreadPoolExecutor(THREADS) as pool:
        for row, look in _looks(manifest.rows(), probe, pool):
            found.videos += _videos(row)
            try:
                found.add(look.result())
            except errors.VideoQAError as error:
                found.refuse(row, error)
            seen += 1
            watcher.update(
                Tally(total=found.rows, done=seen - found.failed, failed=found.failed), 0
            )
    return found


def _looks(
    rows: Iterator[Row], probe: Probe, pool: ThreadPoolExecutor
) -> Iterator[tuple[Row, Future[Probed]]]:
    """In order, with a few ahead of who reads them."""
    ahead: deque[tuple[Row, Future[Probed]]] = deque()
    for row in rows:
        ahead.append((row, pool.submit(probe.look, row.request)))
        if len(ahead) > 4 * THREADS:
            yield ahead.popleft()
    yield from ahead


def _videos(row: Row) -> int:
    return sum(item.kind == "video" for item in row.request.inputs)


def installed_probe(environ: Mapping[str, str]) -> AbstractContextManager[Probe] | None:
    """The one of the worker's package; None where that is not installed."""
    for point in entry_points(group=GROUP):
        make: Callable[[Mapping[str, str]], Any] = point.load()
        return make(environ)  # type: ignore[no-any-return]
    return None
