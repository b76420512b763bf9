"""Arguments that several commands share, and the parts of a request that they stand for.

`ask`, `submit` and `caption` here and `frames` of the worker take the same videos, clips and sampling
flags, so that `frames` shows the pictures that the others ask about. The contract checks the values
(`request.parse_request`); this module adds what only a shell has: paths, and flags for methods.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from videoqa.contract import as_url, is_image_url
from videoqa.errors import InvalidRequest

__all__ = [
    "Budget",
    "End",
    "Fps",
    "Frames",
    "Keyframes",
    "MaxTokens",
    "Model",
    "Overlap",
    "Segments",
    "Start",
    "Summary",
    "Times",
    "Tolerance",
    "build_inputs",
    "build_sampling",
    "check_choice",
    "check_summary",
    "drop_unset",
]

Frames = Annotated[
    int | None,
    typer.Option(
        "--frames", "-n", metavar="N", help="Frames per video [the model's own number, else 8]."
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="F",
        help="Frames per second of video; --frames then limits their number [32].",
    ),
]
Times = Annotated[
    str | None,
    typer.Option(
        "--times", metavar="S,S,...", help="The frames shown at these seconds, for example 1,2.5,4."
    ),
]
Keyframes = Annotated[
    bool,
    typer.Option(
        "--keyframes",
        help="Take the nearest keyframes instead of exact frames: far fewer bytes are fetched.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="S",
        help="With --keyframes: take the exact frame where no keyframe is within S seconds.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", metavar="N", help="Limit on the frames of all videos together."),
]
Segments = Annotated[
    float | None,
    typer.Option(
        "--segments",
        metavar="S",
        help="Cut one long video into segments of S seconds and ask about each; --frames is per segment.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap",
        metavar="S",
        help="With --segments: seconds that each segment shares with the next.",
    ),
]
Summary = Annotated[
    bool,
    typer.Option(
        "--summary", help="With --segments: also ask the model to summarize the segments' answers."
    ),
]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Limit on the length of an answer, in tokens [100].")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Name of the model that answers; unset: the workers' default model."
    ),
]
Start = Annotated[
    float | None, typer.Option(metavar="S", help="Start of the clip, in seconds of the video.")
]
End = Annotated[
    float | None, typer.Option(metavar="S", help="End of the clip, in seconds of the video.")
]


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
        if is_image_url(url)
        else drop_unset(kind="video", url=url, start=start, end=end)
        for url in urls
    ]


def check_summary(*, summary: bool, segments: float | None) -> bool | None:
    """Returns the field `summary`; raises InvalidRequest for --summary without --segments."""
    if summary and segments is None:
        raise InvalidRequest(
            "got --summary without --segments, expected both or neither", param="summary"
        )
    return summary or None


def build_sampling(
    *,
    frames: int | None = None,
    fps: float | None = None,
    times: str | None = None,
    keyframes: bool = False,
    tolerance: float | None = None,
    budget: int | None = None,
    segments: float | None = None,
    overlap: float | None = None,
) -> dict[str, Any] | None:
    """Returns the fields of `Sampling` that the flags stand for; None if no flag is given.

    Raises:
        InvalidRequest: two flags name two methods, or --times has something else than numbers.
    """
    methods = {
        "fps": fps is not None,
        "times": times is not None,
        "keyframe": keyframes,
        "segment": segments is not None,
    }
    chosen = [method for method, is_chosen in methods.items() if is_chosen]
    if len(chosen) > 1:
        raise InvalidRequest(
            "got more than one of --fps, --times, --keyframes and --segments, expected one of them "
            "or none",
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
    return (
        drop_unset(
            method=chosen[0] if chosen else None,
            frames=frames,
            fps=fps,
            times=_parse_seconds(times) if times is not None else None,
            tolerance_s=tolerance,
            segment_s=segments,
            overlap_s=overlap,
            budget=budget,
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
