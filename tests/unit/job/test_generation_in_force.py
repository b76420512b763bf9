"""The generation settings that were in force, as a result shows them."""

from __future__ import annotations

import pytest

from videoqa.contract import Generation, GenerationInForce
from videoqa_worker.job.draft import warn_of_unused


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, None),
        ({"seed": 3}, None),  # it makes nothing else of a greedy answer
        ({"top_k": -1}, None),
        ({"top_k": 5, "temperature": 0.1}, None),
        ({"frequency_penalty": 1.0, "repetition_penalty": 2.0}, None),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.9, "min_p": 0.1}, "top_p"),
    ],
)
def test_filters_of_a_greedy_answer_are_told(fields: dict[str, float], named: str | None) -> None:
    warnings = warn_of_unused(Generation.model_validate(fields))
    assert [one.param for one in warnings] == ([f"generation.{named}"] if named else [])
    assert all(one.code == "sampling_unused" and str(named) in one.message for one in warnings)


@pytest.mark.parametrize("stated", [0.0, 50.0])
def test_a_penalty_that_no_request_may_have_stands_beside_the_others(stated: float) -> None:
    found = GenerationInForce.of(Generation(), {"repetition_penalty": stated})
    assert (found.repetition_penalty, found.from_checkpoint) == (
        None,
        {"repetition_penalty": stated},
    )
