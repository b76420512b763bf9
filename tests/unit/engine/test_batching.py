"""The request queue, and the selection of padded batches."""

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
from videoqa_worker.engine import GenerationRequest
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.scheduling.request_queue import (
    RequestQueue,
    choose_batch,
    count_padded_tokens,
)
from videoqa_worker.prompt import ModelInputs
from videoqa_worker.settings import EngineConfig


def pending(tokens: int, *, answer: int = 10, own_batch: bool = False) -> PendingRequest:
    ids = torch.zeros((1, tokens), dtype=torch.long)
    inputs = ModelInputs(ids, torch.ones_like(ids), {}, (), frames=1)
    return PendingRequest(
        GenerationRequest(inputs, generation=Generation(max_new_tokens=answer), own_batch=own_batch)
    )


def patient(seconds: float) -> PendingRequest:
    ids = torch.zeros((1, 10), dtype=torch.long)
    inputs = ModelInputs(ids, torch.ones_like(ids), {}, (), frames=1)
    return PendingRequest(GenerationRequest(inputs, generation=Generation(), patience_s=seconds))


def config(**settings: Any) -> EngineConfig:
    return EngineConfig(model="some/model", **settings)


def lengths(batch: list[PendingRequest]) -> list[int]:
    return [one.prompt_tokens for one in batch]


def test_the_oldest_runs_first_with_those_of_similar_length() -> None:
    waiting = [pending(n) for n in (100, 1000, 140, 90, 151, 1100)]
    assert lengths(choose_batch(waiting, config(), 10**9)) == [100, 140]
    assert lengths(choose_batch(waiting[1:2] + waiting[5:], config(), 10**9)) == [1000, 1100]


def test_a_batch_has_no_more_sequences_and_tokens_than_allowed() -> None:
    waiting = [pending(100, answer=50) for _ in range(9)]
    assert len(choose_batch(waiting, config(max_batch=4), 10**9)) == 4
    assert len(choose_batch(waiting, config(), 450)) == 3
    assert len(choose_batch(waiting, config(), 1)) == 1


def test_a_long_answer_counts_like_a_long_prompt() -> None:
    waiting = [pending(100, answer=10), pending(100, answer=4000), pending(100, answer=10)]
    assert len(choose_batch(waiting, config(), 1000)) == 2


def test_who_wants_to_be_alone_is_alone_from_both_sides() -> None:
    waiting = [pending(100), pending(100, own_batch=True), pending(100)]
    assert [one.request.own_batch for one in choose_batch(waiting, config(), 10**9)] == [
        False,
        False,
    ]
    assert len(choose_batch(waiting[1:], config(), 10**9)) == 1


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 50_000),
)
def test_any_queue_empties_in_batches_within_the_limits(
    entries: list[tuple[int, bool]], max_batch: int, max_tokens: int
) -> None:
    waiting = [pending(tokens, own_batch=own_batch) for tokens, own_batch in entries]
    settings = config(max_batch=max_batch)
    while waiting:
        batch = choose_batch(waiting, settings, max_tokens)
        assert batch[0] is waiting[0]
        assert len(batch) <= max_batch
        assert len(batch) == 1 or count_padded_tokens(batch) <= max_tokens
        assert max(lengths(batch)) <= 1.5 * min(lengths(batch))
        assert len(batch) == 1 or not any(one.request.own_batch for one in batch)
        waiting = [one for one in waiting if one not in batch]


def test_the_queue_gathers_a_burst_into_one_batch() -> None:
    queue = RequestQueue(config(batch_wait_s=5.0 / 5, max_batch=3))
    enter = threading.Thread(target=lambda: [queue.put(pending(10)) for _ in range(3)])
    enter.start()
    assert len(queue.next_batch(10**9)) == 3
    enter.join()
    assert len(queue) == 0


def test_who_has_waited_long_enough_waits_no_longer_for_company() -> None:
    queue = RequestQueue(config(batch_wait_s=1.0))
    waits_s = []
    for _ in range(5):  # the shortest counts: the machine may be busy
        late = pending(10)
        object.__setattr__(late, "arrived_s", time.monotonic() - 2.0)
        queue.put(late)
        before_s = time.monotonic()
        assert queue.next_batch(10**9) == [late]
        waits_s.append(time.monotonic() - before_s)
    assert min(waits_s) < 1.0


def test_a_closed_queue_hands_back_who_waited_and_lets_nobody_in() -> None:
    queue = RequestQueue(config())
    left = [pending(10), pending(20)]
    for one in left:
        assert queue.put(one)
    assert queue.close() == left
    assert not queue.put(pending(10))
    assert queue.next_batch(10**9) == []


def test_closing_wakes_who_waits_for_a_batch() -> None:
    queue = RequestQueue(config())
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(queue.next_batch(10**9)))
    waiter.start()
    queue.close()
    waiter.join(10)
    assert got == [[]]


def test_a_patient_request_lets_others_pass_and_is_not_passed_for_ever() -> None:
    queue = RequestQueue(config())
    bulk, interactive, late = patient(30), patient(0), patient(0)
    late.rank_s += 31  # as if it came so much later
    for one in (bulk, late, interactive):
        queue.put(one)
    order = [queue.take(lambda _: True, wait=False) for _ in range(3)]
    assert order == [interactive, bulk, late]


def test_who_was_put_back_comes_before_all_others() -> None:
    queue = RequestQueue(config())
    first, second, third = patient(30), patient(0), patient(0)
    queue.put_back([first, second])
    queue.put(third)
    order = [queue.take(lambda _: True, wait=False) for _ in range(3)]
    assert order == [first, second, third]


@pytest.mark.parametrize("batches", [True, False])
def test_who_is_no_longer_wanted_leaves_and_the_queue_waits_on(batches: bool) -> None:
    queue = RequestQueue(config(batch_wait_s=0.0))
    gone = pending(10)
    gone.request = replace(gone.request, should_stop=lambda: True)
    queue.put(gone)
    taken: list[object] = []

    def take() -> None:
        taken.append(queue.next_batch(100)[0] if batches else queue.take(lambda _: True, wait=True))

    thread = threading.Thread(target=take)
    thread.start()
    assert isinstance(gone.future.exception(5), JobCanceled)
    wanted = pending(10)
    queue.put(wanted)
    thread.join(5)
    assert taken == [wanted]


def test_a_queue_that_closes_ends_the_wait() -> None:
    queue = RequestQueue(config())
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(lambda _: True, wait=True)))
    thread.start()
    time.sleep(0.05)
    assert queue.close() == []
    thread.join(5)
    assert taken == [None]
