"""Attempts of one worker on a real ledger, with a model that counts how often it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from videoqa.contract import PRIORITIES, Answer, JobRequest, Sampling
from videoqa.jobs import Ledger, Progress, Submission, new_job_id, queue_name
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.job.checkpoints import Checkpoints
from videoqa_worker.job.claims import Claims
from videoqa_worker.job.context import AttemptContext
from videoqa_worker.job.draft import AttemptDraft
from videoqa_worker.job.leases import LeaseKeeper
from videoqa_worker.job.progress import ProgressWriter
from videoqa_worker.job.sheet import SheetKeeper
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import SourceVersion

__all__ = ["Bells", "Model", "OpenedInputs", "Recorded", "due", "make_attempts", "submit"]


@dataclass
class OpenedInputs:
    """Stands in for the pipeline's `OpenedJob`."""

    context: AttemptContext
    sampling: Sampling
    versions: list[SourceVersion]


class Model:
    """Stands in for the pipeline: counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.etag: str | None = "one"
        self.frames: list[Any] = []
        """Pictures that it sees."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Called while it thinks."""

    @contextmanager
    def open(self, context: AttemptContext, *, own_batch: bool) -> Iterator[OpenedInputs]:
        version = SourceVersion("s3://b/k.mp4", self.etag, None, 1)
        yield OpenedInputs(context, context.request.sampling, [version])

    def answer(self, opened: OpenedInputs, checkpoints: Checkpoints) -> AttemptDraft:
        self.asked += 1
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        opened.context.report(Progress("generating"))
        opened.context.sheet.add(self.frames)
        opened.context.sheet.start_writing()
        text = f"answer {self.asked}"
        answer = Answer(
            question_id="q1", question="What?", text=text, finish_reason="stop",
            input_tokens=1, output_tokens=1,
        )  # fmt: skip
        return AttemptDraft(answers=(answer,))


class Bells:
    """The queues that were rung."""

    def __init__(self) -> None:
        self.rung: list[str] = []


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def bells() -> Bells:
    return Bells()


@pytest.fixture
def attempts(
    settings: Settings, ledger: Ledger, tmp_path: Path, model: Model, bells: Bells
) -> Attempts:
    return make_attempts(
        WorkerSettings(
            redis_url=settings.redis_url,
            prefix=settings.prefix,
            retry_base_s=0.0,
            output=(tmp_path / "results").as_uri() + "/{job_id}.json",
            sheet_output=(tmp_path / "sheets").as_uri() + "/{job_id}.jpg",
        ),
        ledger,
        model,
        ObjectStore(file_roots=(tmp_path,)),
        AnswerCache(ObjectStore(), model="demo", revision="sha256:demo", ttl_s=86_400),
        bells.rung.append,
    )


def make_attempts(
    settings: WorkerSettings,
    ledger: Ledger,
    model: Model,
    objects: ObjectStore,
    cache: AnswerCache,
    ring: Callable[[str], None] = lambda queue: None,
) -> Attempts:
    """Attempts of a worker with the model as its pipeline."""
    return Attempts(
        settings,
        Claims(
            ledger,
            ring,
            [queue_name(ledger.keys.prefix, None, priority) for priority in PRIORITIES],
            worker_id="w",
            lease_s=30,
            tenant_running=settings.tenant_running,
        ),
        LeaseKeeper(ledger, lease_s=30, heartbeat_s=1),
        ProgressWriter(ledger, every_s=settings.progress_every_s),
        cast(Any, model),
        objects,
        cache,
        SheetKeeper(objects, settings.sheet_output, is_default=settings.sheets),
    )


def due(ledger: Ledger) -> str:
    """The queue of the one job whose next attempt is due."""
    queues: list[str] = []
    while not queues:
        queues = ledger.reap(grace_s=60).ring
    return queues[0]


@dataclass(frozen=True)
class Recorded:
    """A job that was recorded, and its queue."""

    job_id: str
    queue: str
    ring: str | None
    """The queue, if it is to be rung."""


def submit(ledger: Ledger, **fields: object) -> Recorded:
    request = JobRequest.model_validate(
        {"inputs": ["s3://b/k.mp4"], "questions": ["What?"], **fields}
    )
    result = ledger.submit(Submission(new_job_id(), request), start_by_default_s=3600)
    assert result.is_new
    queue = queue_name(ledger.keys.prefix, request.model, request.priority)
    return Recorded(str(result.job_id), queue, result.ring)
