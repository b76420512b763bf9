"""UsageRow: the counted use of one day, model, tag, API key or tenant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videoqa.contract.model import Model

__all__ = ["UsageBy", "UsageRow"]

UsageBy = Literal["day", "model", "tag", "key", "tenant"]


class UsageRow(Model):
    """The jobs that ended, and what those of them that succeeded used.

    A job is counted on the UTC day of its end, and again if it is retried and ends once more. That its record expires
    or is deleted takes nothing away.
    """

    name: str | None = None
    """The day, model, tag, key or tenant; None: jobs without one, or those of `other`."""
    other: bool = False
    """True for the jobs of all tags or models beyond the first hundred of a day."""
    succeeded: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    canceled: int = Field(default=0, ge=0)
    expired: int = Field(default=0, ge=0)
    answers: int = Field(default=0, ge=0)
    frames: int = Field(default=0, ge=0)
    """Frames that the model saw."""
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    bytes_fetched: int = Field(default=0, ge=0)
    video_s: float = Field(default=0.0, ge=0)
    """Seconds of the videos, or of the clips of them, that were asked about."""
    processing_s: float = Field(default=0.0, ge=0)
    """Seconds of fetching, sampling, generating and storing."""
