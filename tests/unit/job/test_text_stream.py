"""Text on its way from the engine's thread to a job's events."""

from __future__ import annotations

import threading

import pytest

from videoqa.jobs import Progress
from videoqa_worker.job.text_stream import TextStream


class Events:
    """The reported pieces, as (question, text)."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def __call__(self, *steps: Progress) -> None:
        self.found += [(step.question_id, step.text) for step in steps]

    def text(self, question_id: str) -> str:
        return "".join(text for name, text in self.found if name == question_id)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_pieces_of_a_question_are_reported_together_and_once() -> None:
    events = Events()
    stream = TextStream(["a", "b"], events)
    for text in ("One", " two", " three"):
        stream.make_listener("b")(text)
    stream.flush()
    stream.make_listener("a")("Yes")
    stream.flush()
    stream.flush()
    assert events.found == [("b", "One two three"), ("a", "Yes")]


@pytest.mark.parametrize("questions", [1, 8, 64])
def test_an_answer_of_an_hour_does_not_fill_the_stream_of_events(questions: int) -> None:
    events, clock = Events(), Clock()
    names = [str(n) for n in range(questions)]
    stream = TextStream(names, events, clock)
    takers = [stream.make_listener(name) for name in names]
    while clock.now_s < 3600:
        for take in takers:
            take("x")
        due_s = stream.due_in_s()
        assert due_s > 0
        clock.now_s += due_s
        stream.flush()
    assert 100 < len(events.found) < 800


def test_nothing_is_lost_between_two_threads() -> None:
    events = Events()
    stream = TextStream(["a"], events)
    take = stream.make_listener("a")
    writer = threading.Thread(target=lambda: [take(f"{n} ") for n in range(20_000)])
    writer.start()
    while writer.is_alive():
        stream.flush()
    stream.flush()
    assert events.text("a").split() == [str(n) for n in range(20_000)]
