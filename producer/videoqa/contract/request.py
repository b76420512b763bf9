"""JobRequest: the request of a backend app, with its inputs, questions and options.

The models are frozen, refuse unknown fields, and limit every size and number. They grow by
optional fields only: `tests/contract/golden/` holds JSON of every release, which must still
parse. Times are UTC; durations are seconds as floats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from videoqa import errors
from videoqa.contract.answer_form import FORMS, AnswerForm, AnswerFormOrShort, find_form_mistakes
from videoqa.contract.frame_sampling import Sampling
from videoqa.contract.mistakes import describe_mistake
from videoqa.contract.model import Model
from videoqa.contract.output import check_output
from videoqa.contract.urls import (
    MAX_URL,
    guess_kind,
    is_file_id,
    is_image_url,
    is_s3_url,
    parse_s3_url,
    split_url,
)
from videoqa.contract.webhook import Webhook, WebhookOrUrl
from videoqa.redaction import redact_url
from videoqa.suggestions import suggest

__all__ = [
    "IMAGE_MARK",
    "PRIORITIES",
    "SUMMARY",
    "VIDEO_MARK",
    "Generation",
    "GenerationInForce",
    "Image",
    "Input",
    "JobRequest",
    "Priority",
    "Question",
    "Video",
    "parse_request",
    "redact_request",
]

VIDEO_MARK = "<video>"
IMAGE_MARK = "<image>"

Priority = Literal["interactive", "bulk"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""All priorities, in the order in which workers serve them."""

SUMMARY = "Summarize the whole video in a few sentences."
"""The question that `summary: true` stands for."""


def _validate_url(url: str) -> str:
    if is_file_id(url):
        return url
    if is_s3_url(url):
        parse_s3_url(url)
        return url
    parts = split_url(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(
            f"got scheme {parts.scheme!r}, expected s3://, http(s):// or file:// "
            "(a local path becomes file:// with Path(path).absolute().as_uri())"
        )
    if parts.scheme in ("http", "https") and not parts.hostname:
        raise ValueError("got no host, expected http(s)://host/path")
    if parts.scheme in ("http", "https") and re.search(r"[\x00-\x20\x7f\\]", parts.netloc):
        raise ValueError("got a host with a space, a backslash or a control character in it")
    if parts.scheme == "file" and not (
        parts.netloc in ("", "localhost") and parts.path.startswith("/")
    ):
        raise ValueError("got no absolute path, expected file:///absolute/path")
    return url


def _spell_path(value: Any) -> Any:
    """Turns a path into a file:// URL; a relative one lies below the current folder."""
    return value.absolute().as_uri() if isinstance(value, Path) else value


Url = Annotated[str, Field(min_length=1, max_length=MAX_URL), BeforeValidator(_spell_path)]


class Image(Model):
    """A still picture."""

    kind: Literal["image"] = "image"
    url: Url
    guessed: bool = False
    """True: the kind is a guess from the name of a bare URL, so a file that moves is a video."""

    _check_url = field_validator("url")(_validate_url)

    # No return type: with one, the JSON schema of a dump would be that type's.
    @model_serializer(mode="wrap")
    def _keep_kind(self, dump: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """Dumps `kind` even if defaults are left out, as in records: an input without it is a video."""
        return {"kind": "image", **dump(self)}


class Video(Model):
    """A video, or the part of it from `start` to `end`, in seconds from its beginning."""

    kind: Literal["video"] = "video"
    url: Url
    start: float | None = Field(default=None, ge=0, le=1e7)
    end: float | None = Field(default=None, gt=0, le=1e7)

    _check_url = field_validator("url")(_validate_url)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError(
                f"got end={self.end} s, expected more than start={self.start or 0.0} s"
            )
        return self


def _as_input(value: Any) -> Any:
    """Turns a bare URL or path into a video, or into an image if its path ends like that of a still one."""
    value = _spell_path(value)
    if isinstance(value, str):
        kind = guess_kind(value)
        return {"kind": kind, "url": value} | ({"guessed": True} if kind == "image" else {})
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "video", **value}
    return value


Input = Annotated[
    Annotated[Video | Image, Field(discriminator="kind")],
    BeforeValidator(_as_input, json_schema_input_type=Video | Image | str),
]


_Text = Annotated[str, Field(min_length=1, max_length=32_768)]


class Question(Model):
    """One question about all inputs of the job; its text may place them with `<video>` and `<image>`."""

    id: str = Field(min_length=1, max_length=128)
    text: str = Field(max_length=32_768)
    system: _Text | None = None
    """Instructions to the model, in place of the request's."""
    refine: _Text | None = None
    """Second instruction, in place of the request's."""
    answer: AnswerFormOrShort | None = None
    """Form that the answer has to have; None: that of the request."""


_MOST_PENALTY = 10.0


class Generation(Model):
    """Options of text generation; it is greedy unless `temperature` is above 0."""

    max_new_tokens: int = Field(default=100, ge=1, le=4096)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, lt=2**31)
    """With a temperature: only so many of the most likely tokens are drawn from; 0 or -1: all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """With a temperature: only tokens that have this share of the likeliest one's probability are drawn from."""
    repetition_penalty: float | None = Field(default=None, gt=0, le=_MOST_PENALTY)
    """Above 1: tokens of the prompt and the answer become less likely; None: as the checkpoint states."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from a token's logit for each time that it stands in the answer."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logits of all tokens that stand in the answer."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed that makes sampling repeatable; None: each attempt draws anew."""
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=8
    )
    """Strings that end the answer: it stops before the first of them."""

    @field_validator("top_k")
    @classmethod
    def _spell_all(cls, top_k: int) -> int:
        """Turns -1, which vLLM has for all tokens, into 0."""
        return max(0, top_k)


class GenerationInForce(Generation):
    """Options of text generation that were in force, from the request and from the checkpoint."""

    from_checkpoint: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the checkpoint's generation_config.json that were in force, by transformers' names; long lists
    by their size. The other options are the request's, or its defaults."""

    @classmethod
    def of(
        cls, generation: Generation, stated: Mapping[str, Any] = MappingProxyType({})
    ) -> GenerationInForce:
        """Returns what is in force for a request, on a checkpoint that states these settings."""
        asked = generation.model_dump(exclude_unset=True)
        found = dict(stated)
        if generation.repetition_penalty is not None:
            found.pop("repetition_penalty", None)
        elif 0 < found.get("repetition_penalty", 0) <= _MOST_PENALTY:
            asked["repetition_penalty"] = found["repetition_penalty"]
        return cls.model_validate({**asked, "from_checkpoint": found})


def _number_questions(value: Any) -> Any:
    """Turns bare strings into questions with the ids q1, q2, ..."""
    if isinstance(value, (str, dict, Question)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(
        {"id": f"q{n}", "text": item} if isinstance(item, str) else item
        for n, item in enumerate(value, 1)
    )


def _expand_summary(value: Any) -> Any:
    if isinstance(value, bool):
        return SUMMARY if value else None
    return value


def _wrap_single(value: Any) -> Any:
    if isinstance(value, (str, Path, dict, Video, Image)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


_InputsGiven = Annotated[list[Input], Field(min_length=1, max_length=32)] | Video | Image | str
_QuestionsGiven = (
    Annotated[list[Question | _Text], Field(min_length=1, max_length=64)] | Question | _Text
)
"""Types of the values that stand for inputs and questions in JSON, for its schema."""


class JobRequest(Model):
    """One or more questions about the same videos and images."""

    inputs: Annotated[
        tuple[Input, ...],
        Field(max_length=32),
        BeforeValidator(_wrap_single, json_schema_input_type=_InputsGiven),
    ]
    questions: Annotated[
        tuple[Question, ...],
        Field(min_length=1, max_length=64),
        BeforeValidator(_number_questions, json_schema_input_type=_QuestionsGiven),
    ]
    sampling: Sampling = Sampling()
    answer: AnswerFormOrShort | None = None
    """Form of the answers to questions that name none; None: free text. A summary is always free text."""
    system: _Text | None = None
    """Instructions to the model for all questions that have none of their own, and for the summary: the chat template
    renders them as the system message."""
    refine: _Text | None = None
    """Second instruction, such as to shorten or translate, for all questions that have none of their own: the model
    gets it with its first answer, and no pictures, and what it writes then is the answer."""
    summary: Annotated[
        str | None,
        Field(min_length=1, max_length=32_768),
        BeforeValidator(_expand_summary, json_schema_input_type=_Text | bool | None),
    ] = None
    """Question about the answers of all segments together, for the method `segment`: the model gets
    them with their times, and no pictures. True: `SUMMARY`."""
    generation: Generation = Generation()
    model: str | None = Field(default=None, min_length=1, max_length=256)
    """Name of a checkpoint as its workers announce it; None: the workers' default model."""
    priority: Priority = "interactive"
    tenant: str | None = Field(default=None, min_length=1, max_length=128)
    """Customer that the job is for: tenants take turns, however many jobs one of them has submitted, and a
    client of a tenant sees only that one's jobs."""
    start_by: AwareDatetime | None = None
    """Last instant at which the job may start; after it the job ends as `expired`."""
    timeout_s: float = Field(default=600.0, ge=1, le=86_400)
    """Longest time that one attempt may run."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    result_ttl_s: float = Field(default=86_400.0, ge=60, le=90 * 86_400)
    """Lifetime of the finished record in Redis; the object in storage stays for good."""
    output: str | None = Field(default=None, min_length=1, max_length=2048)
    """URI template of the result object, with `OUTPUT_FIELDS` in braces; None: the worker's own."""
    replaces: str | None = Field(default=None, min_length=1, max_length=128)
    """Id of the job whose result object this job's may replace, if both are of one tenant. Any other
    object in its way fails the job with `output_conflict`."""
    cache: Literal["use", "refresh", "off"] = "use"
    """use: an equal question about the same bytes is answered from the cache, or shares the run of a
    job that asks it now; refresh: the model is asked, and its answer cached; off: no cache."""
    stream: bool = False
    """True: answers also come as `text` events while they are generated."""
    sheet: bool | None = None
    """True: the worker keeps a sheet with thumbnails of the frames; None: as its setting says."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    custom_id: str | None = Field(default=None, min_length=1, max_length=256)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), max_length=8
    )
    """Labels by which `list` finds the job."""
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=1024)]] = (
        Field(default_factory=dict, max_length=32)
    )
    webhook: WebhookOrUrl | None = None
    """URL that a gateway calls when the job ends; a bare URL stands for all events. None: nobody is called."""

    @field_validator("start_by", mode="before")
    @classmethod
    def _refuse_number(cls, start_by: Any) -> Any:
        """Refuses a number in quotes, which pydantic takes for a UNIX time."""
        if isinstance(start_by, str) and re.fullmatch(r"\s*[+-]?[\d.]+\s*", start_by):
            raise ValueError("expected a time such as 2026-11-30T09:30:00Z")
        return start_by

    @field_validator("start_by")
    @classmethod
    def _normalize_start_by(cls, start_by: datetime | None) -> datetime | None:
        """Converts to UTC: the digest of a request must not depend on the zone."""
        try:
            return start_by.astimezone(UTC) if start_by else None
        except OverflowError:
            raise ValueError("expected a time of the years 1 to 9999 in UTC") from None

    @field_validator("output")
    @classmethod
    def _check_output(cls, template: str | None) -> str | None:
        if template is None:
            return None
        check_output(template)
        return template

    @model_validator(mode="after")
    def _check_segments(self) -> Self:
        in_segments = self.sampling.method == "segment"
        if in_segments and [item.kind for item in self.inputs] not in ([], ["video"]):
            raise ValueError(
                f"got {len(self.inputs)} inputs with method='segment', expected one video"
            )
        if self.summary is not None and not in_segments:
            raise ValueError(
                f"got summary with method={self.sampling.method!r}, expected method='segment'"
            )
        return self

    @model_validator(mode="after")
    def _check_guide(self) -> Self:
        clips = [item for item in self.inputs if isinstance(item, Video)]
        is_cut = any((item.start, item.end) != (None, None) for item in clips)
        if self.sampling.method == "guide" and is_cut:
            raise ValueError("got start or end with method='guide', expected whole videos")
        return self

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        ids = Counter(question.id for question in self.questions)
        twice = sorted(name for name, count in ids.items() if count > 1)
        if twice:
            raise ValueError(f"got the question ids {twice} more than once, expected each id once")
        videos = sum(item.kind == "video" for item in self.inputs)
        if self.sampling.budget is not None and self.sampling.budget < videos:
            raise ValueError(
                f"got a budget of {self.sampling.budget} frames for {videos} videos, "
                "expected at least one frame a video"
            )
        if self.output and self.custom_id is None and "custom_id" in check_output(self.output):
            raise ValueError("output contains {custom_id}, expected custom_id to be given")
        return self

    @property
    def full_questions(self) -> tuple[Question, ...]:
        """The questions, each with the request's `system` and `refine` where it has none of its own."""
        return tuple(
            each.model_copy(
                update={"system": each.system or self.system, "refine": each.refine or self.refine}
            )
            for each in self.questions
        )

    def get_form(self, question: Question) -> AnswerForm | None:
        """Returns the form of the answer to a question; None: free text."""
        form = question.answer or self.answer
        return None if form is None or form.kind == "text" else form


def _find_mistakes(request: JobRequest) -> Iterator[errors.RequestError]:
    """Finds what types cannot: no input, a question without text, marks that do not fit."""
    if not request.inputs:
        yield errors.NoMedia(
            "got no input, expected at least one video or image; "
            'name one: inputs=["s3://bucket/clip.mp4"]',
            param="inputs",
        )
        return
    yield from _find_form_mistakes(request)
    yield from _find_instruction_mistakes(request)
    have = Counter(item.kind for item in request.inputs)
    for n, question in enumerate(request.questions):
        where = f"questions.{n}.text"
        if not _remove_marks(question.text).strip():
            yield errors.EmptyQuestion(
                f"got an empty question ({question.id}), expected text to answer", param=where
            )
        marks = Counter(re.findall(r"<(video|image)>", question.text))
        if marks and marks != have and not _fit(marks, request.inputs):
            yield errors.MarkMismatch(
                f"question {question.id} places {marks['video']} <video> and {marks['image']} "
                f"<image> marks, the job has {have['video']} videos and {have['image']} images; "
                "place each input once, or leave the marks out",
                param=where,
            )


def _remove_marks(text: str) -> str:
    return text.replace(VIDEO_MARK, "").replace(IMAGE_MARK, "")


def _list_given(request: JobRequest, *names: str) -> Iterator[tuple[str, Any]]:
    """Yields place and value of these fields where they are given, of the request and then of each question."""
    places = (f"questions.{n}." for n in range(len(request.questions)))
    for place, owner in zip(("", *places), (request, *request.questions), strict=True):
        for name in names:
            if (value := getattr(owner, name)) is not None:
                yield place + name, value


def _find_instruction_mistakes(request: JobRequest) -> Iterator[errors.RequestError]:
    for where, text in _list_given(request, "system", "refine"):
        if not text.strip():
            yield errors.EmptyQuestion(
                f"{where}: got no text, expected instructions, or none", param=where
            )
        if _remove_marks(text) != text:
            yield errors.MarkMismatch(
                f"{where}: got a <video> or <image> mark; place inputs in the question", param=where
            )


def _find_form_mistakes(request: JobRequest) -> Iterator[errors.RequestError]:
    for where, form in _list_given(request, "answer"):
        for path, message in find_form_mistakes(form):
            param = f"{where}.{path}"
            yield errors.AnswerUnsupported(f"{param:.300}: {message}", param=param[:300])


def _fit(marks: Counter[str], inputs: Sequence[Input]) -> bool:
    """Returns True if there is a mark for each input; one that is named like a picture may be of either kind."""
    sure = Counter(
        item.kind for item in inputs if item.kind == "image" or not is_image_url(item.url)
    )
    return marks.total() == len(inputs) and all(marks[kind] >= sure[kind] for kind in sure)


_MODELS: dict[int | str, type[Model]] = {
    "video": Video, "image": Image, "questions": Question, "sampling": Sampling, "generation": Generation,
    "webhook": Webhook, **FORMS,
}  # fmt: skip
"""Models of a request's parts, by the names that stand in the path to a mistake in one."""
_PLACES = {
    "sampling": "sampling={{{}}}", "generation": "generation={{{}}}", "video": "inputs=[{{'url': ..., {}}}]",
}  # fmt: skip
"""Forms in which the fields of a part are written, for a field that stands beside it."""
_MOST_MISTAKES = 20
"""Mistakes that a message lists."""


def parse_request(data: Any, *, strict: bool = False) -> JobRequest:
    """Validates a request from a caller: a JobRequest, a mapping, or JSON text.

    Arguments:
        strict: JSON text has the types of the schema: no number in quotes, no number for a time.

    Raises:
        InvalidRequest, EmptyQuestion, NoMedia, MarkMismatch, AnswerUnsupported: the message has all mistakes, `param`
            names the field of the first one.
    """
    try:
        if isinstance(data, JobRequest):
            request = data
        elif isinstance(data, (str, bytes)):
            request = JobRequest.model_validate_json(data, strict=strict or None)
        else:
            request = JobRequest.model_validate(data)
    except ValidationError as error:
        raise _make_error(error) from error
    if mistakes := list(_find_mistakes(request)):
        first = mistakes[0]
        messages = [each.message for each in mistakes]
        raise type(first)(_join(messages, len(messages)), param=first.param)
    return request


def _make_error(error: ValidationError) -> errors.InvalidRequest:
    # A misspelled field comes first: often it is the one that is missing, too.
    found = sorted(
        error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"
    )
    return errors.InvalidRequest(
        _join([_describe(each) for each in found[:_MOST_MISTAKES]], len(found)),
        param=_param(found[0]["loc"]) or None,
    )


def _join(messages: Sequence[str], count: int) -> str:
    """Joins the first messages of so many."""
    more = count - _MOST_MISTAKES
    return "; ".join(messages[:_MOST_MISTAKES]) + (f"; and {more} more" if more > 0 else "")


def _param(loc: tuple[int | str, ...]) -> str:
    """Returns the path of a field, without the kinds by which pydantic tells the members of a union apart."""
    return ".".join(
        str(part)
        for n, part in enumerate(loc)
        if part not in ("video", "image") and not (n and loc[n - 1] == "answer" and part in FORMS)
    )


def _describe(found: ErrorDetails) -> str:
    """Describes one mistake: the field, what is wrong with it, and what was got."""
    where = f"{_param(found['loc']) or 'request':.120}"
    if found["type"] == "extra_forbidden":
        model = _find_model(found["loc"])
        return f"{where}: unknown field; {_suggest_field(str(found['loc'][-1]), model)}"
    return f"{where}: {describe_mistake(found)}"


def _suggest_field(name: str, model: type[Model]) -> str:
    """Returns the nearest field of the model, one of the request's parts with this name, or all fields."""
    if model is JobRequest:
        for place, form in _PLACES.items():
            if name in _MODELS[place].model_fields:
                return f"it belongs in {form.format(f'{name!r}: ...')}"
    return suggest(name, model.model_fields)


def _find_model(loc: tuple[int | str, ...]) -> type[Model]:
    """Returns the model in which a field of a request stands."""
    for part in reversed(loc[:-1]):
        if part in _MODELS:
            return _MODELS[part]
    return JobRequest


def redact_request(request: JobRequest) -> JobRequest:
    """Returns the request with the URLs of its inputs and its webhook redacted, as jobs and messages may show it."""
    inputs = tuple(item.model_copy(update={"url": redact_url(item.url)}) for item in request.inputs)
    webhook = request.webhook
    if webhook is not None:
        webhook = webhook.model_copy(update={"url": redact_url(webhook.url)})
    return request.model_copy(update={"inputs": inputs, "webhook": webhook})
