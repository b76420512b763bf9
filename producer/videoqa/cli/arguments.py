"""What the arguments of several commands mean, as parts of a request.

`ask` and `submit` here and `frames` of the worker take the same videos, clips and sampling
flags, so that what one shows the other asks about. Whether the values fit is the contract's to
say (`request.parse_request`); here is only what a shell adds: paths, and flags for methods.
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
    "given",
    "media",
    "one_of",
    "sampling",
    "summary_of",
]

Frames = Annotated[
    int | None,
    typer.Option("--frames", "-n", help="Frames of each video that the model sees [8]."),
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Frames a second; --frames is then the most of them [32]."),
]
Times = Annotated[
    str | None,
    typer.Option(
        "--times", metavar="S,S,...", help="The frames at these seconds, such as 1,2.5,4."
    ),
]
Keyframes = Annotated[
    bool,
    typer.Option(
        "--keyframes",
        help="The keyframes nearest to the usual instants: far fewer bytes, not exact.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="S",
        help="With --keyframes: the exact frame where no keyframe is within S seconds.",
    ),
]
Budget = Annotated[
    int | None, typer.Option("--budget", help="Most frames over all videos together.")
]
Segments = Annotated[
    float | None,
    typer.Option(
        "--segments",
        metavar="S",
        help="Ask about each S seconds of one long video; --frames is then for each.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap", metavar="S", help="With --segments: seconds that each shares with the next."
    ),
]
Summary = Annotated[
    bool,
    typer.Option("--summary", help="With --segments: have the model summarize their answers."),
]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer, in tokens [100].")]
Model = Annotated[str | None, typer.Option(help="A model's name; unset: the fleet's default.")]
Start = Annotated[float | None, typer.Option(help="Seconds into the video where the clip starts.")]
End = Annotated[float | None, typer.Option(help="Seconds into the video where the clip ends.")]


def given(**fields: Any) -> dict[str, Any]:
    """Only what was given, so that the contract's defaults hold for the rest."""
    return {name: value for name, value in fields.items() if value not in (None, {}, ())}


def one_of(value: str, flag: str, *allowed: str) -> Any:
    """Raises InvalidRequest if it is none of them."""
    if value not in allowed:
        raise InvalidRequest(f"got {flag} {value!r}, expected {' or '.join(allowed)}")
    return value


def media(names: list[str], start: float | None, end: float | None) -> list[Any]:
    """The inputs of a request.

    Raises:
        InvalidRequest: one is empty, as of a variable that is not set.
    """
    if "" in names:
        raise InvalidRequest("got an empty name, expected a path or a URL", param="inputs")
    urls = [as_url(name) for name in names]
    if start is None and end is None:
        return urls
    return [
        url  # a picture has no clip
        if is_image_url(url)
        else given(kind="video", url=url, start=start, end=end)
        for url in urls
    ]


def summary_of(*, summary: bool, segments: float | None) -> bool | None:
    """Raises InvalidRequest for --summary without --segments."""
    if summary and segments is None:
        raise InvalidRequest(
            "got --summary without --segments, expected both or neither", param="summary"
        )
    return summary or None


def sampling(
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
    """The fields of `Sampling` that the flags stand for; None if there is no flag.

    Raises:
        InvalidRequest: two flags name two methods, or --times holds something else than numbers.
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
        given(
            method=chosen[0] if chosen else None,
            frames=frames,
            fps=fps,
            times=_seconds(times) if times is not None else None,
            tolerance_s=tolerance,
            segment_s=segments,
            overlap_s=overlap,
            budget=budget,
        )
        or None
    )


def _seconds(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidRequest(
            f"got --times {text!r}, expected seconds with commas between them, such as 1,2.5,4",
            param="sampling.times",
        ) from error
