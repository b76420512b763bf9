"""Schemas of batches, for the OpenAPI document; bodies are checked by `BatchBody`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from videoqa.gateway.batches.record import ENDPOINT, BatchStatus, LineError

__all__ = ["BatchBody", "BatchObject", "BatchPage"]

_Key = Annotated[str, Field(min_length=1, max_length=64)]
_Value = Annotated[str, Field(max_length=512)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OutputExpiry(_Strict):
    """Time to live of the output and error files."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class BatchBody(_Strict):
    """A file of chats, to be answered within a day."""

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: str
    """The endpoint of each line: `/v1/chat/completions`."""
    completion_window: Literal["24h"]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None
    output_expires_after: OutputExpiry | None = None

    @property
    def is_for_chats(self) -> bool:
        return self.endpoint == ENDPOINT


class BatchErrors(BaseModel):
    """Mistakes in the input."""

    object: Literal["list"]
    data: list[LineError]


class RequestCounts(BaseModel):
    """Lines by their outcome."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    """Tokens of prompts by kind."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Tokens of answers by kind."""

    reasoning_tokens: int


class BatchUsage(BaseModel):
    """Tokens of all lines."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchObject(BaseModel):
    """A batch, as OpenAI's API has it; times are seconds since 1970."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchPage(BaseModel):
    """A page of batches, the newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
