"""Problem: the document of an error (RFC 9457), as `http/problems.py` writes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from videoqa.contract import Failure

__all__ = ["Problem"]


class Problem(BaseModel):
    """An error; some have more members, such as `limit`."""

    model_config = ConfigDict(extra="allow")

    type: str
    """Link to the code's entry in the reference."""
    title: str
    status: int
    detail: str
    """The message: what was got, what was expected, and the next step."""
    code: str
    """The stable code, for programs."""
    param: str | None
    """Path of the field that is at fault: `inputs.0.url`."""
    retryable: bool
    """True: the same request may succeed later."""
    request_id: str
    failure: Failure | None = Field(default=None, exclude_if=lambda failure: failure is None)
    """The reason why the job failed, if the error is that it did."""
    limit: str | None = Field(default=None, exclude_if=lambda limit: limit is None)
    """Name of the limit that is reached."""
