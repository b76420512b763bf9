"""The engine as a library: the answers of a worker's jobs without a queue, from any thread, and errors as values."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from pydantic import BaseModel
from support.attempts import make_attempts, submit

import videoqa_worker
from videoqa.contract import Failure, Result
from videoqa.errors import (
    AnswerNotServed,
    ClientClosed,
    ConfigurationError,
    InvalidRequest,
    NoMedia,
    SourceNotFound,
)
from videoqa.jobs import Ledger
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker import VideoQA
from videoqa_worker.engine import Engine, Generated, MediaQuestion
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.questions import write_refinement
from videoqa_worker.settings import WorkerSettings

CLIPS = Path(videoqa_worker.__file__).parent / "demo" / "clips"
QUESTION = "What happens in this video?"
TIMES = {"fetching_s", "sampling_s", "generating_s", "storing_s", "queued_s"}
ASKED = {"circle.mp4": "a red circle moves right", "square.mp4": "a blue square moves up"}


@pytest.fixture(scope="module")
def qa() -> Iterator[VideoQA]:
    with VideoQA("demo", decoders=1, max_batch=2) as qa:
        yield qa


def test_an_answer_is_that_of_a_job_with_all_that_it_was_made_from(
    qa: VideoQA, ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    clip = CLIPS / "circle.mp4"
    fields: dict[str, Any] = {
        "sampling": {"method": "segment", "segment_s": 2, "frames": 3},
        "summary": True,
        "metadata": {"row": "7"},
        "custom_id": "seven",
    }
    result = qa.ask(clip, [QUESTION, "What colour?"], **fields)
    parts = qa._start()._parts
    objects = ObjectStore(file_roots=(tmp_path,))
    cache = AnswerCache(objects, model="demo", revision=qa.revision, ttl_s=0)
    attempts = make_attempts(
        WorkerSettings(
            redis_url=settings.redis_url,
            prefix=settings.prefix,
            output=tmp_path.as_uri() + "/{job_id}.json",
        ),
        ledger,
        cast(Any, parts.pipeline),
        objects,
        cache,
    )
    job = submit(ledger, inputs=[clip.as_uri()], questions=[QUESTION, "What colour?"], **fields)
    attempts.process()
    stored = Result.model_validate_json((tmp_path / f"{job.job_id}.json").read_bytes())
    assert _facts(stored) == _facts(result)
    assert [part.text for part in result.segments] == [part.text for part in stored.segments]
    assert len(result.segments) == 2
    assert result.job_id != stored.job_id


def _facts(result: Result) -> dict[str, Any]:
    """The fields of a result that do not tell which job it was, and when."""
    found = result.model_dump(
        exclude={"job_id": True, "created_at": True, "finished_at": True, "usage": TIMES}
    )
    for answer in [*found["answers"], *(a for part in found["segments"] for a in part["answers"])]:
        del answer["first_token_s"]
    return found


def test_threads_ask_at_once_and_each_gets_its_own_answer(qa: VideoQA) -> None:
    clips = [CLIPS / name for name in ASKED] * 3
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda clip: qa.ask(clip, QUESTION), clips))
    assert [result.answers[0].text for result in results] == [*ASKED.values()] * 3


def test_a_bad_row_is_a_value_and_a_generator_is_taken_from_as_it_is_answered(qa: VideoQA) -> None:
    taken = 0
    circle, square = (str(CLIPS / name) for name in ASKED)

    def rows() -> Iterator[Any]:
        nonlocal taken
        for row in (
            circle,
            "/nosuch.mp4",
            {"inputs": square, "questions": "What colour?", "custom_id": "own"},
            [circle, square],
            {"inputs": [], "custom_id": "empty"},
            {"url": square, "start": 0, "end": 2},
            *[circle] * 30,
        ):
            taken += 1
            yield row

    answers = qa.ask_many(rows(), QUESTION, on_error="return", sampling={"frames": 4})
    found = [next(answers) for _ in range(6)]
    assert taken <= 6 + 2 * qa._start().job_slots
    answers.close()  # type: ignore[attr-defined]
    assert taken <= 6 + 2 * qa._start().job_slots
    first, missing, own, both, empty, part = found
    assert isinstance(missing, Failure)
    assert isinstance(empty, Failure)
    assert (missing.code, missing.attempt) == (SourceNotFound.code, 1)
    assert (empty.code, empty.attempt, empty.stage) == (NoMedia.code, 0, "submitting")
    assert isinstance(first, Result)
    assert first.answers[0].text == ASKED["circle.mp4"]
    assert isinstance(own, Result)
    assert (own.answers[0].text, own.custom_id) == ("blue", "own")
    assert isinstance(both, Result)
    assert [source.url for source in both.sources] == [Path(circle).as_uri(), Path(square).as_uri()]
    assert isinstance(part, Result)
    assert part.sources[0].end == 2
    assert {result.sampling.frames for result in (first, own, both, part)} == {4}


def test_errors_raise_where_nobody_asked_for_values(qa: VideoQA) -> None:
    with pytest.raises(SourceNotFound):
        qa.ask("/nosuch.mp4", QUESTION)
    with pytest.raises(SourceNotFound):
        list(qa.ask_many([CLIPS / "circle.mp4", "/nosuch.mp4"], QUESTION))

    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qa.ask(CLIPS / "circle.mp4", QUESTION, on_progress=stop)
    failed = qa.ask("/nosuch.mp4", QUESTION, on_error="return")
    assert isinstance(failed, Failure)
    assert failed.param == "inputs.0.url"


class Seen(BaseModel):
    colour: Literal["red", "blue"]


def test_answers_have_the_form_that_a_program_asks_for(qa: VideoQA) -> None:
    clip = CLIPS / "circle.mp4"
    result = qa.ask(
        clip,
        ["What colour is it?", {"id": "n", "text": "What colour is it?", "answer": "text"}],
        answer=["blue", "red", "green"],
    )
    assert [answer.value for answer in result.answers] == ["red", None]
    failed = qa.ask(clip, "What colour is it?", answer=Seen, on_error="return")
    assert isinstance(failed, Failure)
    assert failed.code == AnswerNotServed.code  # the demo model has no token for a brace


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Text and instructions of each question that the engine gets."""
    found: list[tuple[str, str]] = []
    ask = Engine.ask

    def note(engine: Engine, question: MediaQuestion) -> Future[Generated]:
        found.append((question.text, question.system))
        return ask(engine, question)

    monkeypatch.setattr(Engine, "ask", note)
    return found


def test_an_answer_is_refined_by_a_second_instruction(
    qa: VideoQA, asked: list[tuple[str, str]]
) -> None:
    clip, shorten = CLIPS / "circle.mp4", "What color is the circle?"
    own = {"id": "own", "text": "What colour?", "refine": "Is it blue?", "answer": ["no", "yes"]}
    plain = qa.ask(clip, [QUESTION, "What colour?"])
    asked.clear()
    heard: list[Any] = []
    fields: dict[str, Any] = {"refine": shorten, "system": "Be kind.", "stream": True}
    result = qa.ask(clip, [QUESTION, own], on_progress=heard.append, **fields)
    assert [warning.code for warning in result.warnings] == ["refine_unsupported"]
    first, second = result.answers
    assert (first.unrefined, second.unrefined) == tuple(one.text for one in plain.answers)
    prompts = [f"a red circle moves right\n\n{shorten}", "red\n\nIs it blue?"]
    assert [text for text, _ in asked] == [QUESTION, "What colour?", *prompts]
    assert {system for _, system in asked} == {"Be kind."}
    assert second.value in ("no", "yes")
    assert first.value is None
    assert first.output_tokens > plain.answers[0].output_tokens
    assert result.usage.input_tokens == sum(one.input_tokens for one in result.answers)
    assert result.usage.input_tokens > plain.usage.input_tokens
    for answer in result.answers:
        pieces = [step.text for step in heard if step.question_id == answer.question_id]
        assert "".join(filter(None, pieces)).strip() == answer.text


def test_what_was_refined_from_a_part_of_an_answer_counts_as_cut_off(qa: VideoQA) -> None:
    fields: dict[str, Any] = {"refine": "Is it red?", "answer": ["yes", "no"]}
    fields["generation"] = {"max_new_tokens": 3}
    (answer,) = qa.ask(CLIPS / "circle.mp4", QUESTION, **fields).answers
    assert answer.unrefined == "a red circle"
    assert answer.value in ("yes", "no")
    assert answer.finish_reason == "length"


def test_each_segment_is_refined_and_no_mark_of_an_answer_counts(
    qa: VideoQA, asked: list[tuple[str, str]]
) -> None:
    fields: dict[str, Any] = {"sampling": {"method": "segment", "segment_s": 2, "frames": 2}}
    plain = qa.ask(CLIPS / "circle.mp4", QUESTION, **fields)
    result = qa.ask(CLIPS / "circle.mp4", QUESTION, refine="What shape?", summary=True, **fields)
    found = [answer.unrefined for part in result.segments for answer in part.answers]
    assert found == [part.text for part in plain.segments]
    assert len(found) > 1
    assert result.answers[0].unrefined is None
    assert write_refinement("Shorten.", "a <video> <image>") == "a video image\n\nShorten."


def test_each_question_and_the_summary_get_their_instructions(
    qa: VideoQA, asked: list[tuple[str, str]]
) -> None:
    own = {"id": "own", "text": QUESTION, "system": "Answer in one word."}
    fields: dict[str, Any] = {"system": "Be kind."}
    qa.ask(CLIPS / "circle.mp4", [own, "What colour?"], **fields)
    assert asked == [(QUESTION, "Answer in one word."), ("What colour?", "Be kind.")]
    asked.clear()
    fields |= {"sampling": {"method": "segment", "segment_s": 2, "frames": 2}, "summary": "In all?"}
    qa.ask(CLIPS / "circle.mp4", [own], **fields)
    *segments, (summary, instructions) = asked
    assert set(segments) == {(QUESTION, "Answer in one word.")}
    assert summary.endswith("In all?")
    assert instructions == "Be kind."


def test_text_comes_while_it_is_written(qa: VideoQA) -> None:
    steps: list[Any] = []
    result = qa.ask(CLIPS / "circle.mp4", QUESTION, stream=True, on_progress=steps.append)
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == ["fetching", "sampling", "generating"]
    assert "".join(step.text for step in steps).strip() == result.answers[0].text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"webhook": "https://example.org/hook"}, "webhook"),
        ({"output": "s3://bucket/{job_id}.json"}, "output"),
        ({"idempotency_key": "k"}, "idempotency_key"),
        ({"max_attempts": 5}, "max_attempts"),
        ({"sheet": True}, "sheet"),
        ({"model": "llava-hf/another"}, "model"),
        ({"inputs": "b.mp4"}, "inputs"),
        ({"samplign": {}}, "samplign"),
    ],
)
def test_a_field_that_nobody_here_can_heed_is_refused(
    fields: dict[str, Any], param: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        VideoQA("demo").ask("a.mp4", QUESTION, **fields)
    assert caught.value.param == param


def test_it_pickles_as_its_settings_and_loads_nothing_before_it_is_used(
    qa: VideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOQA_MAX_BATCH", "3")
    copy = pickle.loads(pickle.dumps(qa))
    assert copy._running is None
    assert copy._settings == qa._settings
    assert copy._settings.engine.max_batch == 2
    assert VideoQA.from_environment("demo")._settings.engine.max_batch == 3
    assert VideoQA("demo")._settings.engine.max_batch == 8
    copy.close()
    with pytest.raises(ClientClosed):
        copy.ask(CLIPS / "circle.mp4", QUESTION)
    with pytest.raises(TypeError, match="max_batsch"):
        VideoQA("demo", max_batsch=2)
    with pytest.raises(ConfigurationError, match="MAX_BATCH"):
        VideoQA("demo", max_batch=0)


def test_a_forked_child_leaves_its_parents_engine_alone(qa: VideoQA) -> None:
    qa.start()
    pids = qa._start()._parts.decoders.pids
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if qa._running is None:
                qa.close()
                gc.collect()
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert qa.ask(CLIPS / "square.mp4", QUESTION).answers[0].text == ASKED["square.mp4"]
    assert qa._start()._parts.decoders.pids == pids


def test_files_are_open_unless_folders_are_named(tmp_path: Path) -> None:
    assert VideoQA("demo")._settings.sources.file_roots == (Path("/"),)
    narrow = VideoQA("demo", file_roots=(tmp_path,))
    assert narrow._settings.sources.file_roots == (tmp_path,)
