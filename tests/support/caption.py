"""A run of `videoqa caption` in this process, and attempts that answer its jobs without a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.attempts import Model, make_attempts
from videoqa.bulk import Manifest, Options, OutputDir, ProgressReporter, RowCounts, run_manifest
from videoqa.client import Client
from videoqa.jobs import Ledger, connect, queue_name
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.settings import WorkerSettings

__all__ = ["ROWS", "Heard", "captioned", "working"]

ROWS = 12


class Heard(ProgressReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.most_in_flight = 0

    def note(self, text: str) -> None:
        self.notes.append(text)
        super().note(text)

    def update(self, tally: RowCounts, in_flight: int) -> None:
        self.most_in_flight = max(self.most_in_flight, in_flight)
        super().update(tally, in_flight)


@contextmanager
def working(settings: Settings, folder: Path, model: Model) -> Iterator[None]:
    """A worker's attempts at bulk jobs, one after the other, with a model that is none."""
    over = threading.Event()
    with connect(settings) as redis:
        ledger = Ledger(redis, url=settings.redis_url, prefix=settings.prefix)
        objects = ObjectStore(file_roots=(folder,))
        attempts = make_attempts(
            WorkerSettings(redis_url=settings.redis_url, prefix=settings.prefix),
            ledger,
            model,
            objects,
            AnswerCache(objects, model="demo", revision=None, ttl_s=0),
        )
        queue = queue_name(settings.prefix, None, "bulk")

        def work() -> None:
            while not over.wait(0.05):
                attempts.process(queue)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            attempts.close()
            thread.join()


def captioned(
    settings: Settings,
    folder: Path,
    watcher: ProgressReporter | None = None,
    question: str = "?",
    *,
    sources: Sequence[str] = tuple(f"s3://b/{n:02}.mp4" for n in range(ROWS)),
    store: ObjectStore | None = None,
    **options: Any,
) -> RowCounts:
    """Runs rows into `folder`/out."""
    defaults = {"questions": [question], "priority": "bulk"}
    output = OutputDir(str(folder / "out"), store or ObjectStore())
    root = output.read_root()
    with (
        Manifest(sources, defaults=defaults, store=ObjectStore(), root=root) as manifest,
        Client(settings=settings) as client,
    ):
        return run_manifest(client, manifest, output, Options(poll_s=0.05, **options), watcher)
