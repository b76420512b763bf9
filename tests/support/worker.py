"""The worker's side of a job, played by calls of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from videoqa.contract import Answer, Failure, Result, WorkerInfo
from videoqa.jobs import Claim, Ledger, queue_name

__all__ = ["announce", "begin", "fail", "finish", "result_of"]


def begin(
    ledger: Ledger, token: str = "t", *, lease_s: float = 60, model: str | None = None
) -> Claim:
    """The next interactive job in line."""
    queue = queue_name(ledger.keys.prefix, model, "interactive")
    result = ledger.claim([queue], worker="host:1", lease_s=lease_s, token=token)
    assert result.claim is not None, result
    return result.claim


def announce(ledger: Ledger, model: str, *others: str | None) -> None:
    """Announces a worker of this model, and of the queues of others."""
    now = datetime.now(UTC)
    queues = [queue_name(ledger.keys.prefix, one, "interactive") for one in (model, *others)]
    ledger.announce(
        WorkerInfo(
            id="host:1", model=model, queues=tuple(queues), slots=1, running=0, ready=True,
            started_at=now, seen_at=now,
        )
    )  # fmt: skip


def result_of(claim: Claim, **texts: str) -> Result:
    """`texts`: the answer to each question, by its id."""
    answers = [
        Answer(question_id=name, question="?", text=text, finish_reason="stop",
               input_tokens=1, output_tokens=1)
        for name, text in texts.items()
    ]  # fmt: skip
    return Result.model_validate(
        {
            "job_id": claim.job_id, "answers": answers, "frames": [], "sources": [],
            "model": "demo", "sampling": {}, "generation": {}, "usage": {},
            "attempt": claim.attempt, "created_at": claim.created_at_s,
            "finished_at": datetime.now(UTC),
        }
    )  # fmt: skip


def finish(ledger: Ledger, claim: Claim, **texts: str) -> None:
    result = result_of(claim, **texts)
    found = ledger.finish(claim.job_id, claim.token, result=result, result_url="u")
    assert found in ("ok", "woken")


def fail(ledger: Ledger, *, model: str | None = None) -> str:
    """Fails the next interactive job in line for good; returns its id."""
    claim = begin(ledger, model=model)
    failure = Failure(code="model_error", message="boom", attempt=1)
    assert ledger.fail(claim.job_id, claim.token, failure, delay_s=0) == "failed"
    return claim.job_id
