"""RequestFields: the fields of a request as a caller may write them, for type checkers.

`submit(inputs=..., ...)` and dictionaries are checked by these types before they run; `JobRequest` takes
what they describe. A test holds each class to its model: a field more, less or of another type fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel

from videoqa.contract.answer_form import (
    ChoiceAnswer,
    JsonAnswer,
    NumberAnswer,
    RegexAnswer,
    TextAnswer,
)
from videoqa.contract.frame_sampling import Sampling
from videoqa.contract.request import Generation, Image, Question, Video
from videoqa.contract.webhook import Webhook, WebhookEvent

__all__ = [
    "ChoiceAnswerFields",
    "GenerationFields",
    "ImageFields",
    "JsonAnswerFields",
    "NumberAnswerFields",
    "QuestionFields",
    "RegexAnswerFields",
    "RequestFields",
    "RequestKeywords",
    "SamplingFields",
    "TextAnswerFields",
    "VideoFields",
    "WebhookFields",
]


class _VideoUrl(TypedDict):
    url: str | Path


class VideoFields(_VideoUrl, total=False):
    """The fields of a `Video`."""

    kind: Literal["video"]
    start: float | None
    end: float | None


class _ImageUrl(TypedDict):
    kind: Literal["image"]
    url: str | Path


class ImageFields(_ImageUrl, total=False):
    """The fields of an `Image`; without its kind an input is a video."""

    guessed: bool


class TextAnswerFields(TypedDict):
    """The fields of a `TextAnswer`."""

    kind: Literal["text"]


class ChoiceAnswerFields(TypedDict):
    """The fields of a `ChoiceAnswer`."""

    kind: Literal["choice"]
    choices: list[str] | tuple[str, ...]


class _Json(TypedDict):
    kind: Literal["json"]


class JsonAnswerFields(_Json, total=False):
    """The fields of a `JsonAnswer`."""

    json_schema: Mapping[str, Any]


class RegexAnswerFields(TypedDict):
    """The fields of a `RegexAnswer`."""

    kind: Literal["regex"]
    pattern: str


class _Number(TypedDict):
    kind: Literal["number"]


class NumberAnswerFields(_Number, total=False):
    """The fields of a `NumberAnswer`."""

    minimum: float | None
    maximum: float | None
    integer: bool


_OneAnswer = (
    TextAnswer
    | ChoiceAnswer
    | JsonAnswer
    | RegexAnswer
    | NumberAnswer
    | TextAnswerFields
    | ChoiceAnswerFields
    | JsonAnswerFields
    | RegexAnswerFields
    | NumberAnswerFields
    | list[str]
    | tuple[str, ...]
    | Literal["text", "json", "number"]
    | type[BaseModel]
    | None
)


class _Question(TypedDict):
    id: str
    text: str


class QuestionFields(_Question, total=False):
    """The fields of a `Question`."""

    system: str | None
    refine: str | None
    answer: _OneAnswer


class SamplingFields(TypedDict, total=False):
    """The fields of a `Sampling`."""

    method: Literal["uniform", "fps", "keyframe", "times", "segment", "guide"]
    frames: int | None
    fps: float | None
    times: Sequence[float] | None
    tolerance_s: float | None
    segment: Literal["shots"] | None
    segment_s: float | None
    min_segment_s: float | None
    overlap_s: float | None
    budget: int | None
    max_pixels: int | None
    max_tokens_per_frame: int | None


class GenerationFields(TypedDict, total=False):
    """The fields of a `Generation`."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float | None
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    stop: list[str] | tuple[str, ...]


class _WebhookUrl(TypedDict):
    url: str


class WebhookFields(_WebhookUrl, total=False):
    """The fields of a `Webhook`."""

    events: Sequence[WebhookEvent]


_OneInput = str | Path | Video | Image | VideoFields | ImageFields
_OneQuestion = str | Question | QuestionFields


class _Options(TypedDict, total=False):
    system: str | None
    refine: str | None
    sampling: Sampling | SamplingFields
    answer: _OneAnswer
    summary: str | bool | None
    generation: Generation | GenerationFields
    model: str | None
    priority: Literal["interactive", "bulk"]
    tenant: str | None
    start_by: datetime | None
    timeout_s: float
    max_attempts: int
    result_ttl_s: float
    output: str | None
    replaces: str | None
    cache: Literal["use", "refresh", "off"]
    stream: bool
    sheet: bool | None
    idempotency_key: str | None
    custom_id: str | None
    tags: list[str] | tuple[str, ...]
    metadata: Mapping[str, str]
    webhook: Webhook | WebhookFields | str | None


class RequestFields(_Options):
    """The fields of a `JobRequest`, as a dictionary."""

    inputs: _OneInput | Sequence[_OneInput]
    questions: _OneQuestion | Sequence[_OneQuestion]


class RequestKeywords(_Options, total=False):
    """The keywords of `submit`, which may have a whole request in their place."""

    inputs: _OneInput | Sequence[_OneInput]
    questions: _OneQuestion | Sequence[_OneQuestion]
