"""BatchRecord: a batch as it was asked for, and Batch: with what has become of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

__all__ = ["ENDED", "ENDPOINT", "Batch", "BatchRecord", "BatchStatus", "LineError", "Tally"]

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
]  # fmt: skip
ENDED: tuple[BatchStatus, ...] = ("failed", "completed", "expired", "cancelled")
ENDPOINT = "/v1/chat/completions"


class BatchRecord(BaseModel):
    """The part of a batch that never changes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tenant: str | None
    key_id: str
    """Id of the API key that made it: its scope and limits hold for each line."""
    input_file_id: str
    input_name: str
    """Name of the input's object, whose bytes stay when the file is deleted."""
    input_bytes: int
    parts_id: str
    """Id below which the parts of the output lie until the batch ends."""
    metadata: dict[str, str] | None = None
    output_ttl_s: int | None = None
    created_at: int
    expires_at: int


class LineError(BaseModel):
    """A mistake in a line of the input, or in all of it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """Number of the line, from 1."""


@dataclass
class Tally:
    """Lines by their outcome, and tokens."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, other: Tally) -> None:
        self.completed += other.completed
        self.failed += other.failed
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens


@dataclass(frozen=True)
class Batch:
    """A batch as it stands in Redis."""

    record: BatchRecord
    status: BatchStatus
    times: Mapping[str, int] = field(default_factory=dict)
    """Time of each status that it has reached."""
    total: int = 0
    tally: Tally = field(default_factory=Tally)
    model: str | None = None
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def has_ended(self) -> bool:
        """True if its status is final."""
        return self.status in ENDED

    def describe(self) -> dict[str, Any]:
        """Returns the batch as OpenAI's API has it."""
        record, tally = self.record, self.tally
        times = {f"{status}_at": self.times.get(status) for status in get_args(BatchStatus)}
        del times["validating_at"]
        errors = [each.model_dump() for each in self.errors]
        return {
            "id": record.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "model": self.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": record.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            **times,
            "request_counts": {
                "total": self.total,
                "completed": tally.completed,
                "failed": tally.failed,
            },
            "usage": {
                "input_tokens": tally.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": tally.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tally.input_tokens + tally.output_tokens,
            },
            "metadata": record.metadata,
        }
