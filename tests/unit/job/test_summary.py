"""The summary of segments: all notes at once, or in groups where the context is too short for them."""

from __future__ import annotations

import pytest

from videoqa.contract import Answer
from videoqa.errors import GenerationError, ModelError, ModelServerError, PromptTooLong
from videoqa_worker.job.summary import Note, summarize, write_prompt

QUESTION = "What happened?"


class Model:
    """Counts the notes that it is asked about, and says so; takes no more than `most` of them."""

    def __init__(self, most: int, refusal: type[GenerationError] = PromptTooLong) -> None:
        self.most, self.refusal = most, refusal
        self.asked = 0
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> Answer:
        notes = [line for line in prompt.splitlines() if " to " in line]
        self.asked += 1
        if len(notes) > self.most:
            error = self.refusal(f"{len(notes)} notes")
            if isinstance(error, PromptTooLong) and self.most:
                error.excess = len(notes) / self.most
            raise error
        self.prompts.append(prompt)
        said = sum(int(line.rpartition(" ")[2]) for line in notes)
        return Answer(
            question_id="summary", question=QUESTION, text=f"they are {said}",
            finish_reason="stop", input_tokens=1, output_tokens=1,
        )  # fmt: skip


def notes(count: int) -> list[Note]:
    return [(30.0 * n, 30.0 * n + 30, "it is 1") for n in range(count)]


def test_what_fits_is_asked_at_once() -> None:
    model = Model(most=5)
    assert summarize(QUESTION, notes(5), model).text == "they are 5"
    assert model.prompts == [
        "These are notes on a video, in the order of time:\n"
        "0:00:00 to 0:00:30: it is 1\n0:00:30 to 0:01:00: it is 1\n0:01:00 to 0:01:30: it is 1\n"
        "0:01:30 to 0:02:00: it is 1\n0:02:00 to 0:02:30: it is 1\n\nWhat happened?"
    ]


@pytest.mark.parametrize("refusal", [PromptTooLong, ModelServerError])
@pytest.mark.parametrize("count", [6, 7, 23, 120])
def test_what_does_not_fit_is_summarized_in_groups_and_no_note_is_lost(
    count: int, refusal: type[GenerationError]
) -> None:
    model = Model(most=5, refusal=refusal)
    assert summarize(QUESTION, notes(count), model).text == f"they are {count}"
    end = 30 * count
    clock = f"{end // 3600}:{end % 3600 // 60:02d}:{end % 60:02d}"
    assert f" to {clock}: they are" in model.prompts[-1]


def test_many_hours_take_few_calls_and_keep_the_order_of_time() -> None:
    """1,200 notes of which 20 fit take 60 calls, three of their summaries, and one: 64 at least."""
    model = Model(most=20)
    assert summarize(QUESTION, notes(1200), model).text == "they are 1200"
    assert 64 <= len(model.prompts) <= 1.2 * 64
    assert model.asked - len(model.prompts) <= 3
    starts = [prompt.splitlines()[1].partition(" ")[0] for prompt in model.prompts]
    first_level = starts[: len(starts) - 5]
    assert first_level == sorted(first_level, key=lambda clock: tuple(map(int, clock.split(":"))))


@pytest.mark.parametrize("lengths", [(1, 5000), (5000, 1), (1, 1, 5000), (0, 0, 0)])
def test_notes_of_any_lengths_are_split(lengths: tuple[int, ...]) -> None:
    model = Model(most=1)
    uneven = [(30.0 * n, 30.0 * n + 30, "x" * length + " is 1") for n, length in enumerate(lengths)]
    with pytest.raises(PromptTooLong):  # two summaries do not fit
        summarize(QUESTION, uneven, model)
    assert len(model.prompts) >= 2


@pytest.mark.parametrize("most", [0, 1])
def test_a_context_that_holds_no_two_notes_is_an_error_and_no_endless_loop(most: int) -> None:
    with pytest.raises(PromptTooLong):
        summarize(QUESTION, notes(4), Model(most))


@pytest.mark.parametrize(("error", "asked"), [(ModelServerError, 11), (ModelError, 1)])
def test_what_no_halving_helps_against_is_soon_an_error(
    error: type[GenerationError], asked: int
) -> None:
    model = Model(most=0, refusal=error)
    with pytest.raises(error):
        summarize(QUESTION, notes(1024), model)
    assert model.asked == asked


def test_what_the_model_said_places_no_video() -> None:
    prompt = write_prompt(QUESTION, [(0.0, 1.0, "a <video> of an <image>")])
    assert "<" not in prompt
    assert "a video of an image" in prompt
