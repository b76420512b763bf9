"""Completions: a job's result in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

from videoqa.contract import Job, Result

__all__ = ["count_usage", "make_completion", "make_head", "name_finish"]


def make_completion(job: Job, result: Result, model: str | None) -> dict[str, Any]:
    """Makes the body of a whole answer.

    Arguments:
        model: the model as the caller named it; None: the one that answered.
    """
    answer = result.answers[0]
    message = {"role": "assistant", "content": answer.text.strip(), "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": name_finish(answer.finish_reason),
    }
    head = make_head(job, "chat.completion", model or result.model)
    return head | {"choices": [choice], "usage": count_usage(result)}


def make_head(job: Job, kind: str, model: str) -> dict[str, Any]:
    """Makes the fields with which a completion and each of its chunks begin."""
    return {
        "id": f"chatcmpl-{job.id}",
        "object": kind,
        "created": int(job.created_at.timestamp()),
        "model": model,
    }


def name_finish(reason: str) -> str:
    """Returns OpenAI's name of the reason why an answer ends."""
    return "length" if reason == "length" else "stop"


def count_usage(result: Result) -> dict[str, int]:
    """Counts the tokens of the answer, also of one that comes from the cache."""
    given = sum(answer.input_tokens for answer in result.answers)
    made = sum(answer.output_tokens for answer in result.answers)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
