"""Who runs together next."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videoqa.contract import Generation
from videoqa.errors import JobCanceled
from videoqa_worker.engine import EngineConfig, GenerationRequest
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.scheduling.request_queue import WaitingRoom, choose, padded_tokens
from videoqa_worker.prompt import ModelInputs


def ticket(tokens: int, *, answer: int = 10, alone: bool = False) -> Ticket:
    ids = torch.zeros((1, tokens), dtype=torch.long)
    inputs = ModelInputs(ids, torch.ones_like(ids), {}, (), frames=1)
    return Ticket(GenerationRequest(inputs, Generation(max_new_tokens=answer), alone=alone))


def patient(seconds: float) -> Ticket:
    ids = torch.zeros((1, 10), dtype=torch.long)
    inputs = ModelInputs(ids, torch.ones_like(ids), {}, (), frames=1)
    return Ticket(GenerationRequest(inputs, Generation(), patience_s=seconds))


def config(**settings: Any) -> EngineConfig:
    return EngineConfig(model="some/model", **settings)


def lengths(batch: list[Ticket]) -> list[int]:
    return [one.prompt_tokens for one in batch]


def test_the_oldest_runs_first_with_those_of_similar_length() -> None:
    waiting = [ticket(n) for n in (100, 1000, 140, 90, 151, 1100)]
    assert lengths(choose(waiting, config(), 10**9)) == [100, 140]
    assert lengths(choose(waiting[1:2] + waiting[5:], config(), 10**9)) == [1000, 1100]


def test_a_batch_has_no_more_rows_and_tokens_than_allowed() -> None:
    waiting = [ticket(100, answer=50) for _ in range(9)]
    assert len(choose(waiting, config(max_batch=4), 10**9)) == 4
    assert len(choose(waiting, config(), 450)) == 3
    assert len(choose(waiting, config(), 1)) == 1


def test_a_long_answer_counts_like_a_long_prompt() -> None:
    waiting = [ticket(100, answer=10), ticket(100, answer=4000), ticket(100, answer=10)]
    assert len(choose(waiting, config(), 1000)) == 2


def test_who_wants_to_be_alone_is_alone_from_both_sides() -> None:
    waiting = [ticket(100), ticket(100, alone=True), ticket(100)]
    assert [one.request.alone for one in choose(waiting, config(), 10**9)] == [False, False]
    assert len(choose(waiting[1:], config(), 10**9)) == 1


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 50_000),
)
def test_any_queue_empties_in_batches_within_the_limits(
    queue: list[tuple[int, bool]], max_batch: int, max_tokens: int
) -> None:
    waiting = [ticket(tokens, alone=alone) for tokens, alone in queue]
    settings = config(max_batch=max_batch)
    while waiting:
        batch = choose(waiting, settings, max_tokens)
        assert batch[0] is waiting[0]
        assert len(batch) <= max_batch
        assert len(batch) == 1 or padded_tokens(batch) <= max_tokens
        assert max(lengths(batch)) <= 1.5 * min(lengths(batch))
        assert len(batch) == 1 or not any(one.request.alone for one in batch)
        waiting = [one for one in waiting if one not in batch]


def test_the_room_gathers_a_burst_into_one_batch() -> None:
    room = WaitingRoom(config(batch_wait_s=5.0 / 5, max_batch=3))
    enter = threading.Thread(target=lambda: [room.enter(ticket(10)) for _ in range(3)])
    enter.start()
    assert len(room.next_batch(10**9)) == 3
    enter.join()
    assert len(room) == 0


def test_who_has_waited_long_enough_waits_no_longer_for_company() -> None:
    room = WaitingRoom(config(batch_wait_s=1.0))
    late = ticket(10)
    object.__setattr__(late, "arrived_s", time.monotonic() - 2.0)
    room.enter(late)
    before = time.monotonic()
    assert room.next_batch(10**9) == [late]
    assert time.monotonic() - before < 1.0


def test_a_closed_room_hands_back_who_waited_and_lets_nobody_in() -> None:
    room = WaitingRoom(config())
    left = [ticket(10), ticket(20)]
    for one in left:
        assert room.enter(one)
    assert room.close() == left
    assert not room.enter(ticket(10))
    assert room.next_batch(10**9) == []


def test_closing_wakes_who_waits_for_a_batch() -> None:
    room = WaitingRoom(config())
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(room.next_batch(10**9)))
    waiter.start()
    room.close()
    waiter.join(10)
    assert got == [[]]


def test_a_patient_request_lets_others_pass_and_is_not_passed_for_ever() -> None:
    room = WaitingRoom(config())
    bulk, interactive, late = patient(30), patient(0), patient(0)
    late.turn_s += 31  # as if it came so much later
    for one in (bulk, late, interactive):
        room.enter(one)
    order = [room.take(lambda ticket: True, wait=False) for _ in range(3)]
    assert order == [interactive, bulk, late]


def test_who_was_put_back_comes_before_all_others() -> None:
    room = WaitingRoom(config())
    first, second, third = patient(30), patient(0), patient(0)
    room.put_back([first, second])
    room.enter(third)
    order = [room.take(lambda ticket: True, wait=False) for _ in range(3)]
    assert order == [first, second, third]


@pytest.mark.parametrize("batches", [True, False])
def test_who_is_no_longer_wanted_leaves_and_the_room_waits_on(batches: bool) -> None:
    room = WaitingRoom(config(batch_wait_s=0.0))
    gone = ticket(10)
    gone.request = replace(gone.request, should_stop=lambda: True)
    room.enter(gone)
    taken: list[object] = []

    def take() -> None:
        taken.append(room.next_batch(100)[0] if batches else room.take(lambda _: True, wait=True))

    thread = threading.Thread(target=take)
    thread.start()
    assert isinstance(gone.future.exception(5), JobCanceled)
    wanted = ticket(10)
    room.enter(wanted)
    thread.join(5)
    assert taken == [wanted]


def test_a_room_that_closes_ends_the_wait() -> None:
    room = WaitingRoom(config())
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(room.take(lambda _: True, wait=True)))
    thread.start()
    time.sleep(0.05)
    assert room.close() == []
    thread.join(5)
    assert taken == [None]
