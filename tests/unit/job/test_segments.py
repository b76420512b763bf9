"""One attempt goes through the segments: so many at a time, and some of them alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from videoqa import errors
from videoqa.contract import JobRequest, Segment, Video, Warn
from videoqa_worker.engine import Answering, Generated, MediaQuestion
from videoqa_worker.frames import Frame, SampledSegment, SampledVideo, VideoInfo
from videoqa_worker.job.context import AttemptContext, JobControl
from videoqa_worker.job.draft import AttemptDraft
from videoqa_worker.job.pipeline import Pipeline
from videoqa_worker.job.questions import QuestionSession
from videoqa_worker.job.segments import AHEAD, Segments
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

TOTAL = 3 * AHEAD


class Film:
    """Stands in for decoders: a picture a segment."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.closed = False

    def segments(self, *_: Any, first: int, **__: Any) -> Generator[SampledSegment]:
        info = VideoInfo(10.0 * TOTAL, 25.0, 2, 2, "h264", "mp4", start_offset_s=2.5)
        try:
            for number in range(min(first, TOTAL - 1), TOTAL):
                self.taken.append(number)
                frame = Frame(number, 10.0 * number, True, np.zeros((2, 2, 3), np.uint8))
                video = SampledVideo((frame,), info)
                yield SampledSegment(number, TOTAL, 10.0 * number, 10.0 * number + 10, video)
        finally:
            self.closed = True


class Model:
    """Answers when it is told to."""

    stated_sampling = None, None
    stated_generation: ClassVar[dict[str, Any]] = {"repetition_penalty": 1.1}
    warnings = (Warn(code="no_chat_template", message="the prompt had the plain format"),)

    def __init__(self) -> None:
        self.asked: list[Future[Generated]] = []
        self.alone: list[bool] = []
        self.stops: list[Callable[[], bool]] = []
        self.on_ask: Callable[[], None] = self.answer_all

    def warn_of(self, media: object) -> tuple[Warn, ...]:
        return ()

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        self.asked.append(Future())
        self.alone.append(question.own_batch)
        self.stops.append(question.should_stop)
        self.on_ask()
        return self.asked[-1]

    def answer_all(self) -> None:
        for n, future in enumerate(self.asked):
            if not future.done():
                future.set_result(
                    Generated(
                        text=f"answer {n}", tokens=(1,), finish_reason="stop", input_tokens=1,
                        output_tokens=1, first_token_s=0.0,
                    )
                )  # fmt: skip


class Kept:
    def __init__(self, done: int = 0) -> None:
        self.segments = [
            Segment(number=n, start=10.0 * n, end=10.0 * n + 10, answers=(), frames=())
            for n in range(done)
        ]

    def load(self) -> list[Segment]:
        return list(self.segments)

    def save(self, segment: Segment) -> None:
        self.segments.append(segment)


@pytest.fixture
def film() -> Film:
    return Film()


@pytest.fixture
def model() -> Model:
    return Model()


def answer(film: Film, model: Model, kept: Kept, *, own_batch: bool = False) -> AttemptDraft:
    request = JobRequest.model_validate(
        {
            "inputs": ["file:///film.mp4"],
            "questions": ["What?"],
            "sampling": {"method": "segment", "segment_s": 10},
        }
    )
    draft = AttemptDraft(request.sampling)
    context = AttemptContext(request, JobControl("job", 1, 60), lambda progress: None)
    copy = cast(Any, type("Copy", (), {
        "is_reread": False,
        "waited_s": 0.0, "fetched_bytes": 1, "size_bytes": 2, "etag": None, "version_id": None,
    }))  # fmt: skip
    (item,) = request.inputs
    assert isinstance(item, Video)
    with QuestionSession(cast(Answering, model), context, own_batch=own_batch) as session:
        segments = Segments(context, draft, cast(Any, film), session, kept)
        segments.ask(item, copy)
        segments.finish()
    return draft


def test_answers_come_in_the_order_of_time_and_are_kept_one_by_one(
    film: Film, model: Model
) -> None:
    kept = Kept()
    outcome = answer(film, model, kept)
    assert [part.text for part in outcome.segments] == [f"answer {n}" for n in range(TOTAL)]
    assert kept.segments == outcome.segments
    assert (film.taken, film.closed) == (list(range(TOTAL)), True)


def test_the_source_tells_its_first_picture_on_a_players_clock(film: Film, model: Model) -> None:
    (source,) = answer(film, model, Kept()).sources
    assert source.start_offset_s == 2.5


def test_no_more_are_asked_about_at_a_time_than_may_have_to_be_asked_again(
    film: Film, model: Model
) -> None:
    kept, open_ = Kept(), []

    def on_ask() -> None:
        open_.append(len(model.asked) - len(kept.segments))
        if len(model.asked) % AHEAD == 0:
            model.answer_all()

    model.on_ask = on_ask
    answer(film, model, kept)
    assert max(open_) == AHEAD


@pytest.mark.parametrize("done", [0, 5, TOTAL - 1, TOTAL])
def test_a_second_attempt_asks_alone_only_what_the_first_may_have_asked(
    done: int, film: Film, model: Model
) -> None:
    outcome = answer(film, model, Kept(done), own_batch=True)
    assert len(outcome.segments) == TOTAL
    assert model.alone == [n < done + AHEAD for n in range(done, TOTAL)]
    assert film.taken == list(range(min(done, TOTAL - 1), TOTAL))
    assert len(outcome.sources) == 1


def test_a_second_attempt_warns_of_what_the_first_had_to(film: Film, model: Model) -> None:
    kept = Kept(2)
    outcome = answer(film, model, kept)
    (warning,) = outcome.warnings
    assert (warning.code, warning.param) == ("fewer_frames", "inputs.0")
    assert warning.message.startswith("asked for 8 frames, the clip has 0")


def test_an_error_stops_the_others_closes_the_video_and_leaves_what_is_kept(
    film: Film, model: Model
) -> None:
    kept = Kept()

    def on_ask() -> None:
        if len(model.asked) == AHEAD:
            model.asked[0].set_result(
                Generated(text="0", tokens=(1,), finish_reason="stop", input_tokens=1,
                          output_tokens=1, first_token_s=0.0)
            )  # fmt: skip
            model.asked[1].set_exception(errors.ModelError("boom"))

    model.on_ask = on_ask
    with pytest.raises(errors.ModelError) as caught:
        answer(film, model, kept)
    assert caught.value.param == "questions.0.text"
    assert [part.number for part in kept.segments] == [0]
    assert film.closed
    assert all(stop() for stop in model.stops)


class Rewriting(Kept):
    """Others write to the file as this segment is kept."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__()
        self._path, self._number = path, number

    def save(self, segment: Segment) -> None:
        super().save(segment)
        if segment.number == self._number:
            self._path.write_bytes(b"another film")


@pytest.mark.parametrize("number", [0, TOTAL - 1])
def test_a_file_may_be_written_to_once_its_last_segment_is_taken(
    number: int, film: Film, model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    request = JobRequest.model_validate(
        {
            "inputs": [path.as_uri()],
            "questions": ["What?"],
            "sampling": {"method": "segment", "segment_s": 10},
        }
    )

    def on_ask() -> None:
        if len(model.asked) < TOTAL:
            model.answer_all()
        else:
            threading.Timer(0.2, model.answer_all).start()

    model.on_ask, kept = on_ask, Rewriting(path, number)
    with Sources(SourceConfig(file_roots=(tmp_path,))) as sources:
        pipeline = Pipeline(sources, cast(Any, film), cast(Answering, model))
        context = AttemptContext(request, JobControl("job", 1, 60), lambda progress: None)

        def run() -> AttemptDraft:
            with pipeline.open(context, own_batch=False) as opened:
                return pipeline.answer(opened, kept)

        if number == 0:
            with pytest.raises(errors.InputChanged) as caught:
                run()
            assert caught.value.param == "inputs.0.url"
        else:
            draft = run()
            assert len(draft.segments) == TOTAL
            assert draft.warnings == [*Model.warnings]
            assert draft.generation.repetition_penalty == 1.1
            assert draft.generation.from_checkpoint == Model.stated_generation
