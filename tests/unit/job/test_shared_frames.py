"""Jobs that need the same frames of the same version of a file have them decoded once, each by its own right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from videoqa.contract import JobRequest, Usage
from videoqa.errors import (
    InputChanged,
    JobCanceled,
    JobTimeout,
    SourceDenied,
    VideoCorrupt,
    VideoQAError,
)
from videoqa_worker.engine import Answering, Generated, MediaQuestion
from videoqa_worker.frames import Frame, SampledVideo, VideoInfo
from videoqa_worker.job.context import AttemptContext, JobControl
from videoqa_worker.job.pipeline import Pipeline
from videoqa_worker.job.shared_frames import SharedFrames
from videoqa_worker.prompt import PreparedMedia
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources, SourceVersion


class Decoding:
    """Stands in for decoders: counts, and decodes until it may end where it is told to wait."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self.error: Callable[[], VideoQAError | None] = lambda: None
        self.meanwhile: Callable[[], object] = lambda: None

    def sample(self, file: Any, *_: Any, check: Callable[[], None], **__: Any) -> SampledVideo:
        self.files.append(file.path)
        self.begun.set()
        while not self.may_end.wait(0.01):
            check()
        self.meanwhile()
        if (error := self.error()) is not None:
            raise error
        info = VideoInfo(10.0, 25.0, 4, 4, "h264", "mp4")
        pixels = np.full((4, 4, 3), len(self.files), np.uint8)
        return SampledVideo((Frame(0, 0.0, True, pixels),), info)


class Model:
    """Answers with the shade of the picture that it was shown."""

    stated_sampling = None, None
    stated_generation: ClassVar[dict[str, Any]] = {}
    warnings = ()

    def warn_of(self, media: object) -> tuple[()]:
        return ()

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        (item,) = cast(PreparedMedia, question.media).media
        answer: Future[Generated] = Future()
        answer.set_result(Generated(str(item.frames[0][0, 0, 0]), (), "stop", 1, 1))
        return answer


class Jobs:
    """Jobs of one worker, each on a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.clip = folder / "clip.mp4"
        self.clip.write_bytes(b"video")
        self.decoding = Decoding()
        self.frames = SharedFrames(limit_bytes=1000)
        self._folder = folder
        self.stack = ExitStack()
        self.open_sources(folder)
        self._threads = ThreadPoolExecutor(8)

    def open_sources(self, *roots: Path) -> None:
        config = SourceConfig(file_roots=roots, spool_dir=self._folder / "spool")
        self.sources = self.stack.enter_context(Sources(config))

    def run(self, **fields: Any) -> tuple[str, Usage]:
        return self.start(**fields)[0].result(30)

    def start(self, **fields: Any) -> tuple[Future[tuple[str, Usage]], JobControl, threading.Event]:
        """Starts a job; the event is set when it waits for a decoder, or for another job."""
        waits = threading.Event()
        control = JobControl("j", 1, 60.0)
        plain = control.check

        def check() -> None:
            if control.is_sampling:  # type: ignore[attr-defined]
                waits.set()
            plain()

        control.is_sampling = False  # type: ignore[attr-defined]
        control.check = check  # type: ignore[method-assign]
        given = {"inputs": [{"kind": "video", "url": self.clip.as_uri()}], "questions": ["What?"]}
        request = JobRequest.model_validate(given | fields)

        def report(*steps: Any) -> None:
            control.is_sampling = steps[-1].stage == "sampling"  # type: ignore[attr-defined]

        def work() -> tuple[str, Usage]:
            pipeline = Pipeline(
                self.sources,
                cast(Any, self.decoding),
                cast(Answering, Model()),
                shared_frames=self.frames,
            )
            context = AttemptContext(request, control, report)
            with pipeline.open(context, own_batch=False) as opened:
                draft = pipeline.answer(opened)
            return draft.answers[0].text, draft.usage(0.0)

        return self._threads.submit(work), control, waits

    def start_two(self) -> tuple[Any, Any]:
        """Starts a job that decodes, and one that waits for it."""
        self.decoding.may_end.clear()
        first = self.start()
        assert self.decoding.begun.wait(30)
        second = self.start()
        assert second[2].wait(30)
        return first, second


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path)
    with jobs.stack:
        yield jobs


def test_jobs_at_the_same_time_decode_once_and_say_so(jobs: Jobs) -> None:
    first, second = jobs.start_two()
    jobs.decoding.may_end.set()
    assert [job[0].result(30)[0] for job in (first, second)] == ["1", "1"]
    assert [job[0].result(30)[1].frames_shared for job in (first, second)] == [0, 1]
    assert [job[0].result(30)[1].frames for job in (first, second)] == [1, 1]
    assert len(jobs.decoding.files) == 1
    text, usage = jobs.run()  # a little later
    assert (text, usage.frames_shared, len(jobs.decoding.files)) == ("1", 1, 1)


def test_the_next_job_decodes_when_the_first_is_canceled(jobs: Jobs) -> None:
    first, second = jobs.start_two()
    first[1].stop(JobCanceled("canceled on request"))
    with pytest.raises(JobCanceled):
        first[0].result(30)
    jobs.decoding.may_end.set()
    text, usage = second[0].result(30)
    assert (text, usage.frames_shared) == ("2", 0)


def test_a_job_that_waits_ends_by_its_own_cancel_or_deadline(jobs: Jobs) -> None:
    first, second = jobs.start_two()
    third = jobs.start()
    assert third[2].wait(30)
    third[1]._deadline = 0.0
    second[1].stop(JobCanceled("canceled on request"))
    with pytest.raises(JobCanceled):
        second[0].result(30)
    with pytest.raises(JobTimeout):
        third[0].result(30)
    assert not first[0].done()
    jobs.decoding.may_end.set()
    assert first[0].result(30)[0] == "1"


def test_a_corrupt_video_is_found_corrupt_once_and_names_each_jobs_input(jobs: Jobs) -> None:
    jobs.decoding.error = lambda: VideoCorrupt("no picture decodes")
    first, second = jobs.start_two()
    jobs.decoding.may_end.set()
    errors = [job[0].exception(30) for job in (first, second)]
    assert [type(error) for error in errors] == [VideoCorrupt] * 2
    assert errors[0] is not errors[1]
    assert [error.param for error in errors] == ["inputs.0.url"] * 2
    assert len(jobs.decoding.files) == 1


def test_frames_are_those_of_the_files_version_and_of_the_request(jobs: Jobs) -> None:
    jobs.run()
    others: list[dict[str, Any]] = [
        {"sampling": {"frames": 3}},
        {"inputs": [{"kind": "video", "url": jobs.clip.as_uri(), "start": 1}]},
        {"tenant": "another"},
    ]
    assert [jobs.run(**fields)[0] for fields in others] == ["2", "3", "4"]
    jobs.clip.write_bytes(b"another video")
    assert jobs.run()[0] == "5"
    assert jobs.run(questions=["Something else?"])[0] == "5"


def test_a_job_opens_its_input_itself_before_it_gets_frames(jobs: Jobs) -> None:
    jobs.run()
    jobs.open_sources()  # of a worker whose operator has opened no folder
    with pytest.raises(SourceDenied):
        jobs.run()


def test_a_file_that_changes_meanwhile_is_shared_with_nobody(jobs: Jobs) -> None:
    jobs.decoding.meanwhile = lambda: jobs.clip.write_bytes(b"longer than before")
    first, second = jobs.start_two()
    jobs.decoding.may_end.set()
    for job in (first, second):
        assert isinstance(job[0].exception(30), InputChanged)
    assert len(jobs.decoding.files) == 2
    assert jobs.frames.counts.entries == 0


def test_without_sharing_each_job_decodes(jobs: Jobs) -> None:
    jobs.frames = SharedFrames(is_on=False, limit_bytes=1000)
    assert [jobs.run()[0] for _ in range(2)] == ["1", "2"]


def test_only_versions_that_stand_for_certain_bytes_are_shared() -> None:
    strong = SourceVersion("https://h/v.mp4", "abc", None, 5)
    assert strong.names_bytes
    assert not replace(strong, etag='W/"abc"').names_bytes
    assert not replace(strong, etag=None, state="Mon, 30 Nov 2026 22:00:00 GMT").names_bytes
    assert replace(strong, etag=None, state="sha256:00").names_bytes


def test_shared_frames_cannot_be_written_to(jobs: Jobs) -> None:
    seen: list[np.ndarray] = []
    plain = Model.ask

    def look(model: Model, question: MediaQuestion) -> Future[Generated]:
        seen.extend(cast(PreparedMedia, question.media).media[0].frames)
        return plain(model, question)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "ask", look)
        jobs.run()
        jobs.run()
    assert seen[0] is seen[1]
    with pytest.raises(ValueError, match="read-only"):
        seen[0][:] = 0
