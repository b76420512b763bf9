"""Names of span attributes: OpenTelemetry's for generative AI, which are unstable, and our own.

The names of generative AI have moved between repositories and may change again: they stand here and nowhere else.
Questions and answers are in no span.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ERROR_TYPE", "PROVIDER", "describe_answer", "describe_chat", "describe_job"]

PROVIDER = "videoqa"
ERROR_TYPE = "error.type"


def describe_chat(
    *, model: str, max_tokens: int, temperature: float, seed: int | None
) -> dict[str, Any]:
    """Returns the attributes of a question to the model."""
    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.request.temperature": temperature,
    }
    if seed is not None:
        found["gen_ai.request.seed"] = seed
    return found


def describe_answer(
    *,
    model: str,
    input_tokens: int,
    output_tokens: int,
    finish_reason: str,
    first_token_s: float,
) -> dict[str, Any]:
    """Returns the attributes of its answer."""
    return {
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "gen_ai.response.finish_reasons": [finish_reason],
        "gen_ai.response.time_to_first_chunk": round(first_token_s, 6),
    }


def describe_job(**fields: Any) -> dict[str, Any]:
    """Returns attributes of a job, without those that are None."""
    return {f"videoqa.job.{name}": value for name, value in fields.items() if value is not None}
