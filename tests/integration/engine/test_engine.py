"""The engine answers as the Hugging Face guide does, whoever else is in the batch.

Compared with the guide's recipe the engine runs with its pixels, `REFERENCE`. Fast pixels
differ by a rounding here and there, which turns a word of a random model now and then; that
the engine makes of them what transformers would is `test_engine_pixels`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.engine import (
    REFERENCE,
    TOGETHER,
    VARIED,
    answers,
    ask,
    batch_sizes,
    mixed,
    single,
    submitted,
)
from support.models import DEMO, clip, picture
from transformers import AutoProcessor, LlavaForConditionalGeneration

from videoqa.errors import JobCanceled, PromptTooLong
from videoqa_worker.engine import Engine, Generated
from videoqa_worker.prompt import FrameInput

GUIDE_CASES = [
    ("What happens in both videos?", 6, 6),
    ("Who wins?", 1, 1),
    ("What is different between the first video and the second one?", 12, 12),
    ("Where?", 3, 9),
]


@pytest.fixture(params=["slots", "generate"])
def engine(request: pytest.FixtureRequest, engine_of: Callable[..., Engine]) -> Engine:
    return engine_of("interleave", batching=request.param, **TOGETHER)


# --- the guide, written out


class Guide:
    """The recipe of the guide: one prompt string, one processor call, one `generate`."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)

    def answer(self, prompt: str, frames: list[Any], max_new_tokens: int) -> list[int]:
        inputs = self.processor(
            text=prompt, images=[Image.fromarray(f) for f in frames], return_tensors="pt"
        )
        output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return output[0, inputs["input_ids"].shape[1] :].tolist()


GUIDED = ["interleave", *(["demo"] if DEMO.is_dir() else [])]


@pytest.mark.parametrize("name", GUIDED)
def test_the_engine_says_token_by_token_what_the_guides_recipe_says(
    name: str, checkpoint: Callable[[str], Path], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(name, chat_template="guide", **REFERENCE)
    guide = Guide(checkpoint(name))
    expected, requests = [], []
    for n, (question, first, second) in enumerate(GUIDE_CASES):
        media = [clip(n, first), clip(n + 20, second)]
        frames = [frame for video in media for frame in video.frames]
        prompt = (
            "<|im_start|>user" + "<image>" * len(frames) + f"\n{question}"
            "<|im_end|><|im_start|>assistant"
        )
        expected.append(guide.answer(prompt, frames, max_new_tokens=100))
        requests.append(ask(engine, media, question, max_new_tokens=100))
    one_by_one = [single(engine, request) for request in requests]
    with batch_sizes(engine) as rows:
        together = answers(engine, requests)
    assert max(rows) == len(requests)
    assert [list(answer.tokens) for answer in one_by_one] == expected
    assert [list(answer.tokens) for answer in together] == expected
    if name == "interleave":
        assert len({tuple(tokens) for tokens in expected}) == len(expected)


def test_the_engine_follows_the_checkpoints_own_template(
    checkpoint: Callable[[str], Path], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of("interleave", **REFERENCE)
    guide = Guide(checkpoint("interleave"))
    media = [clip(1, 4), clip(2, 4)]
    content = [{"type": "image"}] * 8 + [{"type": "text", "text": "What is new?"}]
    prompt = guide.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    frames = [frame for video in media for frame in video.frames]
    expected = guide.answer(prompt, frames, max_new_tokens=40)
    (answer,) = answers(engine, [ask(engine, media, "What is new?", max_new_tokens=40)])
    assert list(answer.tokens) == expected
    assert answer.text == guide.processor.decode(expected, skip_special_tokens=True).strip()


def test_the_answer_depends_on_the_question_and_on_every_frame(engine: Engine) -> None:
    video = clip(1, 4)
    changed = FrameInput("video", (*video.frames[:2], clip(9, 1).frames[0], *video.frames[3:]))
    told = answers(
        engine,
        [
            ask(engine, [video], "What is it?"),
            ask(engine, [video], "Who is it?"),
            ask(engine, [changed], "What is it?"),
            ask(engine, [video, clip(2, 1)], "What is it?"),
            ask(engine, [clip(2, 1), video], "What is it?"),
        ],
    )
    assert len({answer.tokens for answer in told}) == len(told)


# --- batches


@pytest.mark.parametrize("count", range(1, 9))
def test_a_batch_answers_as_its_sequences_do_alone(engine: Engine, count: int) -> None:
    requests = mixed(engine, count)
    alone = [single(engine, request) for request in requests]
    with batch_sizes(engine) as rows:
        together = answers(engine, requests)
    assert max(rows) == count
    assert together == alone
    assert len({answer.tokens for answer in alone}) == count


def test_each_sequence_keeps_its_own_settings_in_a_batch(engine: Engine) -> None:
    settings: list[dict[str, Any]] = [
        {"max_new_tokens": 1},
        {"max_new_tokens": 30},
        {"temperature": 0.8, "seed": 3},
        {"temperature": 1.5, "seed": 3, "top_p": 0.7},
        {"stop": ("I", "C")},
        {"max_new_tokens": 7, "stop": ("never said",)},
    ]
    requests = [
        ask(engine, [clip(n, 3 + n)], f"What is number {n}?", **own)
        for n, own in enumerate(settings)
    ]
    alone = [single(engine, request) for request in requests]
    with batch_sizes(engine) as rows:
        together = answers(engine, requests)
    assert max(rows) >= len(settings) - 1  # the first ends with its first token
    assert together == alone
    assert [len(answer.tokens) for answer in alone][:2] == [1, 30]


def test_a_sequence_is_delivered_when_it_ends_and_not_when_its_batch_does(engine: Engine) -> None:
    short = ask(engine, [clip(1, 2)], "Short?", max_new_tokens=3)
    when_short_was_done: list[int] = []

    def progress(tokens: int) -> None:
        if futures and futures[0].done():
            when_short_was_done.append(tokens)

    long = ask(engine, [clip(2, 2)], "Long?", max_new_tokens=30, on_progress=progress)
    futures: list[Any] = []
    with batch_sizes(engine) as rows:
        futures.extend(submitted(engine, [short, long]))
        assert futures[1].result(60).output_tokens > 5
    assert max(rows) == 2
    assert when_short_was_done[0] <= 4


def test_a_request_that_asks_to_be_alone_is_never_batched(engine: Engine) -> None:
    requests = [ask(engine, [clip(n, 2)], "What?", max_new_tokens=3) for n in range(4)]
    with batch_sizes(engine) as rows:
        beside: list[int] = []
        requests[1] = replace(
            requests[1], own_batch=True, on_progress=lambda _: beside.append(rows[-1])
        )
        answers(engine, requests)
    assert beside == [1, 1, 1]
    assert max(rows) > 1


def test_prompts_of_very_different_length_are_not_padded_to_each_other(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", batch_wait_s=0.2, batching="generate")
    lengths = [1, 12, 1, 12, 1]
    with batch_sizes(engine) as rows:
        answers(engine, [ask(engine, [clip(n, k)], "What?") for n, k in enumerate(lengths)])
    assert max(rows) == 3  # of five


# --- sampling


def test_a_seed_gives_the_same_answer_alone_and_in_any_batch(engine: Engine) -> None:
    hot = {"temperature": 1.2, "top_p": 0.9}
    request = ask(engine, [clip(1, 4)], "Tell me a story", seed=11, **hot)
    neighbours = mixed(engine, 3, temperature=1.0, seed=5)
    alone = [single(engine, request) for _ in range(2)]
    first = answers(engine, [request, *neighbours])[0]
    last = answers(engine, [*neighbours, request])[-1]
    assert alone[0] == alone[1] == first == last
    other = ask(engine, [clip(1, 4)], "Tell me a story", seed=12, **hot)
    greedy = ask(engine, [clip(1, 4)], "Tell me a story")
    assert len({a.tokens for a in (alone[0], *answers(engine, [other, greedy]))}) == 3


def test_without_a_seed_each_answer_is_drawn_anew(engine: Engine) -> None:
    requests = [ask(engine, [clip(1, 4)], "Story?", temperature=1.5) for _ in range(4)]
    assert len({answer.tokens for answer in answers(engine, requests)}) == 4


def test_a_narrow_nucleus_is_the_greedy_answer(engine: Engine) -> None:
    greedy = ask(engine, [clip(1, 4)], "What?")
    narrow = ask(engine, [clip(1, 4)], "What?", temperature=1.0, top_p=1e-6, seed=1)
    one, other = answers(engine, [greedy, narrow])
    assert one == other


def test_the_checkpoints_sampling_settings_do_not_leak_into_answers(
    checkpoint: Callable[[str], Path], engine: Engine
) -> None:
    saved = (checkpoint("interleave") / "generation_config.json").read_text()
    assert '"do_sample": true' in saved
    request = ask(engine, [clip(1, 4)], "What?")
    assert len({answer.tokens for answer in answers(engine, [request] * 4)}) == 1


# --- ends


def test_an_answer_ends_at_the_models_end_token(engine: Engine) -> None:
    told = answers(engine, mixed(engine, 8, max_new_tokens=400))
    ended = [answer for answer in told if answer.finish_reason == "stop"]
    assert ended
    for answer in ended:
        assert answer.tokens[-1] == 2
        assert 2 not in answer.tokens[:-1]
        assert "<|im_end|>" not in answer.text


def test_an_answer_ends_at_its_limit(engine: Engine) -> None:
    (answer,) = answers(engine, [ask(engine, [clip(1, 4)], "What?", max_new_tokens=9)])
    assert (answer.finish_reason, answer.output_tokens, len(answer.tokens)) == ("length", 9, 9)


"""An answer of letters that seldom repeat."""


def test_an_answer_ends_before_a_stop_string_that_spans_tokens(engine: Engine) -> None:
    whole = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED)).text
    stop = whole[11:16]
    assert whole.index(stop) == 11
    cut = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED, stop=(stop, "nowhere")))
    assert cut.finish_reason == "stop_string"
    assert cut.text == whole[:11].strip()
    assert cut.output_tokens == 16


def test_of_two_stop_strings_that_end_together_the_earlier_start_counts(engine: Engine) -> None:
    whole = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED)).text
    stops = (whole[14:17], whole[10:17])
    assert [whole.index(stop) for stop in stops] == [14, 10]
    cut = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED, stop=stops))
    assert cut.text == whole[:10].strip()


def test_input_tokens_are_those_of_the_prompt(engine: Engine) -> None:
    request = ask(engine, [clip(1, 4), picture(2)], "What?")
    (answer,) = answers(engine, [request])
    assert answer.input_tokens == request.inputs.input_ids.shape[1]
    assert request.inputs.media_tokens == 5 * 9


# --- callers that go away


def test_a_canceled_sequence_ends_half_way_and_its_neighbours_are_undisturbed(
    engine: Engine,
) -> None:
    progress: list[int] = []
    leaving = ask(
        engine,
        [clip(7, 5)],
        "Going?",
        max_new_tokens=40,
        on_progress=progress.append,
        should_stop=lambda: len(progress) >= 6,
    )
    neighbours = mixed(engine, 4, max_new_tokens=40)
    alone = [single(engine, request) for request in neighbours]
    with batch_sizes(engine) as rows:
        futures = submitted(engine, [*neighbours[:2], leaving, *neighbours[2:]])
        told = [futures[n].result(60) for n in (0, 1, 3, 4)]
    assert max(rows) == 5
    with pytest.raises(JobCanceled):
        futures[2].result(60)
    assert told == alone
    assert progress == [1, 2, 3, 4, 5, 6]


def test_an_answer_that_is_complete_is_not_canceled_any_more(engine: Engine) -> None:
    told: list[int] = []
    request = ask(
        engine,
        [clip(1, 2)],
        "What?",
        max_new_tokens=3,
        should_stop=lambda: 3 in told,
        on_progress=told.append,
    )
    assert single(engine, request).output_tokens == 3
    assert told == [1, 2, 3]


def test_who_is_canceled_before_its_turn_costs_the_model_nothing(engine: Engine) -> None:
    with batch_sizes(engine) as rows:
        future = engine.submit(ask(engine, [clip(1, 4)], "What?", should_stop=lambda: True))
        with pytest.raises(JobCanceled):
            future.result(60)
    assert rows == []


def test_a_future_canceled_while_it_waits_is_dropped(engine: Engine) -> None:
    with batch_sizes(engine) as rows:
        asked = [ask(engine, [clip(n, 4)], "What?", max_new_tokens=3) for n in range(3)]
        with engine._queue._changed:
            futures = submitted(engine, asked)
            assert futures[1].cancel()
        assert futures[0].result(60)
        assert futures[2].result(60)
    assert max(rows) == 2


def test_a_callback_that_raises_fails_its_own_sequence_only(engine: Engine) -> None:
    def broken(tokens: int) -> None:
        raise LookupError("the caller's own fault")

    neighbour = ask(engine, [clip(1, 4)], "What?")
    alone = answers(engine, [neighbour])
    bad = ask(engine, [clip(2, 4)], "What?", on_progress=broken)
    futures = submitted(engine, [bad, neighbour])
    assert futures[1].result(60) == alone[0]
    with pytest.raises(LookupError, match="own fault"):
        futures[0].result(60)


def test_a_prompt_that_is_too_long_fails_before_it_reaches_the_model(engine: Engine) -> None:
    request = ask(engine, [clip(1, 12)], "What?", max_new_tokens=2000)
    with batch_sizes(engine) as rows, pytest.raises(PromptTooLong, match="2048"):
        engine.submit(request).result(60)
    assert rows == []


def test_many_threads_get_their_own_answers(engine: Engine) -> None:
    requests = mixed(engine, 8)
    alone = [single(engine, request) for request in requests]
    got: dict[int, Generated] = {}

    def one(n: int) -> None:
        for _ in range(3):
            request = mixed(engine, n + 1)[n]
            got[n] = engine.submit(request).result(60)
            assert got[n] == alone[n]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[n] for n in range(8)] == alone
