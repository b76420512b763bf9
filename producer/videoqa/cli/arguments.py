"""Arguments that several commands share, and the parts of a request that they stand for.

`ask`, `submit` and `caption` here and `frames` of the worker take the same videos, clips and sampling
flags, so that `frames` shows the pictures that the others ask about. The contract checks the values
(`request.parse_request`); this module adds what only a shell has: paths, and flags for methods.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Annotated, Any, Literal, get_type_hints

import typer

from videoqa.cli.answer_form import Choice, Number, Regex, Schema, build_form
from videoqa.contract import as_url, guess_kind
from videoqa.errors import InvalidRequest

__all__ = [
    "AnswerFlags",
    "ClipFlags",
    "End",
    "Fps",
    "FrameFlags",
    "JobFlags",
    "Keyframes",
    "Start",
    "Tags",
    "Times",
    "Tolerance",
    "build_inputs",
    "build_sampling",
    "check_choice",
    "drop_unset",
    "expand_flags",
]

_FRAMES, _ANSWER, _JOB = "Frames", "Answer", "Job"
"""Headings of the options in the help."""

Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        "-n",
        metavar="N",
        rich_help_panel=_FRAMES,
        help="Frames per video [the model's own number, else 8].",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="F",
        rich_help_panel=_FRAMES,
        help="Frames per second of video; --frames then limits their number [32].",
    ),
]
Times = Annotated[
    str | None,
    typer.Option(
        "--times",
        metavar="S,S,...",
        rich_help_panel=_FRAMES,
        help="The frames shown at these seconds, for example 1,2.5,4.",
    ),
]
Keyframes = Annotated[
    bool,
    typer.Option(
        "--keyframes",
        rich_help_panel=_FRAMES,
        help="Take the nearest keyframes instead of exact frames: far fewer bytes are fetched.",
    ),
]
Guide = Annotated[
    bool,
    typer.Option(
        "--guide",
        rich_help_panel=_FRAMES,
        help="The frames that Hugging Face's guide takes with OpenCV; the worker needs the extra `guide`.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="S",
        rich_help_panel=_FRAMES,
        help="With --keyframes: take the exact frame where no keyframe is within S seconds.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        metavar="N",
        rich_help_panel=_FRAMES,
        help="Limit on the frames of all videos together.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        rich_help_panel=_FRAMES,
        help="Limit on the pixels of each frame, as the model's processor resizes it.",
    ),
]
MaxFrameTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-per-frame",
        metavar="N",
        rich_help_panel=_FRAMES,
        help="Limit on the tokens that stand for each frame in the prompt.",
    ),
]
Segments = Annotated[
    float | None,
    typer.Option(
        "--segments",
        metavar="S",
        rich_help_panel=_FRAMES,
        help="Cut one long video into segments of S seconds and ask about each; --frames is per segment.",
    ),
]
Shots = Annotated[
    bool,
    typer.Option(
        "--shots",
        rich_help_panel=_FRAMES,
        help="Cut one video where the film cuts and ask about each shot; --segments is then the longest.",
    ),
]
MinSegment = Annotated[
    float | None,
    typer.Option(
        "--min-segment",
        metavar="S",
        rich_help_panel=_FRAMES,
        help="With --shots: pass over cuts that come less than S seconds after the last (default 1).",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap",
        metavar="S",
        rich_help_panel=_FRAMES,
        help="With --segments: seconds that each segment shares with the next.",
    ),
]
Summary = Annotated[
    bool,
    typer.Option(
        "--summary",
        rich_help_panel=_FRAMES,
        help="With --segments or --shots: also ask the model to summarize the segments' answers.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ANSWER,
        help="Limit on the length of an answer, in tokens [100].",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=_ANSWER,
        help="Name of the model that answers; unset: the workers' default model.",
    ),
]
Start = Annotated[
    float | None,
    typer.Option(
        metavar="S", rich_help_panel=_FRAMES, help="Start of the clip, in seconds of the video."
    ),
]
End = Annotated[
    float | None,
    typer.Option(
        metavar="S", rich_help_panel=_FRAMES, help="End of the clip, in seconds of the video."
    ),
]


Temperature = Annotated[
    float | None,
    typer.Option(
        metavar="T", rich_help_panel=_ANSWER, help="Sampling temperature, 0 to 2; 0: greedy [0]."
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        rich_help_panel=_ANSWER,
        help="With --temperature: draw from the likeliest tokens that reach this probability [1].",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ANSWER,
        help="With --temperature: draw from so many of the likeliest tokens; 0: all [0].",
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        rich_help_panel=_ANSWER,
        help="With --temperature: draw from tokens with this share of the likeliest one's probability [0].",
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=_ANSWER,
        help="Above 1: tokens of question and answer become less likely; unset: as the checkpoint states.",
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=_ANSWER,
        help="Less likely for each time that a token stands in the answer, -2 to 2 [0].",
    ),
]
PresencePenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=_ANSWER,
        help="Less likely once a token stands in the answer, -2 to 2 [0].",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ANSWER,
        help="With --temperature: makes the answer repeatable.",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=_ANSWER,
        help="The answer ends before this text; may be given several times.",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=_ANSWER,
        help="Instructions to the model, such as 'Answer in French.'",
    ),
]
Refine = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=_ANSWER,
        help="Second instruction about the model's first answer, such as 'Shorten it.'",
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="use|refresh|off",
        rich_help_panel=_ANSWER,
        help="Use known answers, ask the model and update them, or do neither [use].",
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="TAG",
        rich_help_panel=_JOB,
        help="Label by which `list --tag` finds the job; may be given several times.",
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_JOB, help="Tenant whose job this is; tenants take turns."
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        rich_help_panel=_JOB,
        help="Your own data, returned with the job and its result; may be given several times.",
    ),
]
StartBy = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        rich_help_panel=_JOB,
        help="The job expires unless it starts within 30s, 10m, 2h or 1d, or by 2026-12-31T18:00.",
    ),
]
JobTimeout = Annotated[
    float | None,
    typer.Option(
        "--job-timeout",
        metavar="S",
        rich_help_panel=_JOB,
        help="Limit on one attempt at the job, in seconds [600].",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=_JOB,
        help="URL of the result object, with {job_id} or {custom_id} in it; unset: the worker's "
        "VIDEOQA_OUTPUT.",
    ),
]


@dataclass(frozen=True)
class ClipFlags:
    """The flags of the part of each video that is looked at."""

    start: Start = None
    end: End = None


@dataclass(frozen=True)
class FrameFlags:
    """The flags of the frames that are taken of a video or clip."""

    frames: Frames = None
    fps: Fps = None
    times: Times = None
    keyframes: Keyframes = False
    guide: Guide = False
    tolerance: Tolerance = None
    budget: Budget = None
    segments: Segments = None
    shots: Shots = False
    min_segment: MinSegment = None
    overlap: Overlap = None
    summary: Summary = False
    max_pixels: MaxPixels = None
    max_frame_tokens: MaxFrameTokens = None

    def build(self) -> dict[str, Any]:
        """Returns the fields of the request; raises InvalidRequest."""
        sampling = build_sampling(
            frames=self.frames, fps=self.fps, times=self.times, keyframes=self.keyframes, guide=self.guide,
            tolerance=self.tolerance, budget=self.budget, segments=self.segments, overlap=self.overlap,
            shots=self.shots, min_segment=self.min_segment,
            max_pixels=self.max_pixels, max_frame_tokens=self.max_frame_tokens,
        )  # fmt: skip
        if self.summary and self.segments is None and not self.shots:
            raise InvalidRequest(
                "got --summary without --segments or --shots, expected one of them", param="summary"
            )
        return drop_unset(sampling=sampling, summary=self.summary or None)


@dataclass(frozen=True)
class AnswerFlags:
    """The flags of the model and its answers."""

    model: Model = None
    max_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    repetition_penalty: RepetitionPenalty = None
    frequency_penalty: FrequencyPenalty = None
    presence_penalty: PresencePenalty = None
    seed: Seed = None
    stop: Stop = None
    cache: Cache = None
    system: System = None
    refine: Refine = None
    choice: Choice = None
    schema: Schema = None
    regex: Regex = None
    number: Number = False

    def build(self) -> dict[str, Any]:
        """Returns the fields of the request; raises InvalidRequest."""
        generation = drop_unset(
            max_new_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k,
            min_p=self.min_p, repetition_penalty=self.repetition_penalty, frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty, seed=self.seed, stop=tuple(self.stop or ()),
        )  # fmt: skip
        answer = build_form(self.choice, self.schema, self.regex, number=self.number)
        return drop_unset(
            model=self.model,
            generation=generation,
            cache=self.cache,
            system=self.system,
            refine=self.refine,
            answer=answer,
        )


@dataclass(frozen=True)
class JobFlags:
    """The flags of the job: for whom it runs, until when, and how it is found again."""

    tags: Tags = None
    tenant: Tenant = None
    metadata: Metadata = None
    start_by: StartBy = None
    job_timeout: JobTimeout = None
    output: Output = None

    def build(self) -> dict[str, Any]:
        """Returns the fields of the request; raises InvalidRequest."""
        return drop_unset(
            tags=self.tags or None,
            tenant=self.tenant,
            metadata=_parse_metadata(self.metadata),
            start_by=parse_instant("--start-by", self.start_by, from_now=1),
            timeout_s=self.job_timeout,
            output=self.output,
        )


def expand_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with a flag for each field of those parameters that are dataclasses.

    Typer makes a flag of each parameter; so commands can share groups of them.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        param.name: param.annotation
        for param in signature.parameters.values()
        if is_dataclass(param.annotation)
    }

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    params = [param for param in signature.parameters.values() if param.name not in groups]
    for group in groups.values():
        hints = get_type_hints(group, include_extras=True)
        params += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(group)
        ]
    params.sort(key=lambda param: param.kind)
    run.__signature__ = signature.replace(parameters=params)  # type: ignore[attr-defined]
    run.__annotations__ = {param.name: param.annotation for param in params}
    return run


def drop_unset(**fields: Any) -> dict[str, Any]:
    """Returns the fields that have a value, so that the contract's defaults hold for the rest."""
    return {name: value for name, value in fields.items() if value not in (None, {}, ())}


def check_choice(value: str, flag: str, *allowed: str) -> Any:
    """Returns the value of a flag; raises InvalidRequest if it is none of those allowed."""
    if value not in allowed:
        raise InvalidRequest(f"got {flag} {value!r}, expected {' or '.join(allowed)}")
    return value


def build_inputs(names: list[str], start: float | None, end: float | None) -> list[Any]:
    """Returns the inputs of a request, with the clip in each video.

    Raises:
        InvalidRequest: a name is empty, as from a shell variable that is not set.
    """
    if "" in names:
        raise InvalidRequest("got an empty name, expected a path or a URL", param="inputs")
    urls = [as_url(name) for name in names]
    if start is None and end is None:
        return urls
    return [
        url  # an image has no clip
        if guess_kind(url) == "image"
        else drop_unset(kind="video", url=url, start=start, end=end)
        for url in urls
    ]


def _parse_metadata(pairs: Sequence[str] | None) -> dict[str, str]:
    """Returns the entries of `--metadata KEY=VALUE`; raises InvalidRequest for one without `=`."""
    found = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidRequest(
                f"got --metadata {pair!r}, expected KEY=VALUE, for example shop=17",
                param="metadata",
            )
        found[key] = value
    return found


def parse_instant(flag: str, text: str | None, *, from_now: Literal[-1, 1]) -> datetime | None:
    """Returns the instant of a flag: a time from now or, with -1, before now, or a date and time in the local zone."""
    if text is None:
        return None
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
            return datetime.now(UTC) + from_now * timedelta(**{units[found[2]]: int(found[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        relation = "from now" if from_now == 1 else "ago"
        raise InvalidRequest(
            f"got {flag} {text!r}, expected 30s, 10m, 2h or 1d {relation}, or a time such as "
            "2026-12-31T18:00",
            param=flag.removeprefix("--").replace("-", "_"),
        ) from error


def build_sampling(
    *,
    frames: int | None = None,
    fps: float | None = None,
    times: str | None = None,
    keyframes: bool = False,
    guide: bool = False,
    tolerance: float | None = None,
    budget: int | None = None,
    segments: float | None = None,
    shots: bool = False,
    min_segment: float | None = None,
    overlap: float | None = None,
    max_pixels: int | None = None,
    max_frame_tokens: int | None = None,
) -> dict[str, Any] | None:
    """Returns the fields of `Sampling` that the flags stand for; None if no flag is given.

    Raises:
        InvalidRequest: two flags name two methods, or --times has something else than numbers.
    """
    methods = {
        "fps": fps is not None,
        "times": times is not None,
        "keyframe": keyframes,
        "segment": shots or segments is not None,
        "guide": guide,
    }
    chosen = [method for method, is_chosen in methods.items() if is_chosen]
    if len(chosen) > 1:
        raise InvalidRequest(
            "got more than one of --fps, --times, --keyframes, --guide and --segments (or --shots), expected one of "
            "them or none",
            param="sampling.method",
        )
    if tolerance is not None and not keyframes:
        raise InvalidRequest(
            "got --tolerance without --keyframes, expected both or neither",
            param="sampling.tolerance_s",
        )
    if overlap is not None and segments is None:
        raise InvalidRequest(
            "got --overlap without --segments, expected both or neither",
            param="sampling.overlap_s",
        )
    if min_segment is not None and not shots:
        raise InvalidRequest(
            "got --min-segment without --shots, expected both or neither",
            param="sampling.min_segment_s",
        )
    return (
        drop_unset(
            method=chosen[0] if chosen else None,
            frames=frames,
            fps=fps,
            times=_parse_seconds(times) if times is not None else None,
            tolerance_s=tolerance,
            segment="shots" if shots else None,
            segment_s=segments,
            min_segment_s=min_segment,
            overlap_s=overlap,
            budget=budget,
            max_pixels=max_pixels,
            max_tokens_per_frame=max_frame_tokens,
        )
        or None
    )


def _parse_seconds(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidRequest(
            f"got --times {text!r:.80}, expected seconds with commas between them, for example 1,2.5,4",
            param="sampling.times",
        ) from error
