"""Report of `videoqa frames`: a table for people, one JSON object for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videoqa_worker.cli.frames.take import FramesView
from videoqa_worker.frames import Frame, VideoInfo

__all__ = ["build_json", "describe_video", "format_lines", "list_notes"]


def build_json(view: FramesView, files: Sequence[Path], sheet: Path | None) -> dict[str, Any]:
    """Returns the JSON object that docs/reference/cli.md describes. Without --out, `file` is null."""
    info = view.video.info
    names: Sequence[Path | None] = files or [None] * len(view.video.frames)
    return {
        "source": view.source,
        "kind": view.kind,
        "duration_s": _round(info.duration_s),
        "start_offset_s": _round(info.start_offset_s),
        "fps": _round(info.fps),
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "format": info.format,
        "dynamic_range": info.dynamic_range,
        "tone_mapped": info.tone_mapped,
        "size_bytes": view.size_bytes,
        "frames": [
            {
                "index": frame.index,
                "pts_s": round(frame.pts_s, 6),
                "asked_s": round(frame.asked_s, 6),
                "exact": frame.exact,
                "file": str(name) if name else None,
            }
            for frame, name in zip(view.video.frames, names, strict=True)
        ],
        "sheet": str(sheet) if sheet else None,
        "warnings": [{"code": each.code, "message": each.message} for each in view.warnings],
        "bytes_fetched": view.fetched_bytes,
        "requests": view.requests,
        "seconds": round(view.seconds, 3),
    }


def format_lines(view: FramesView, files: Sequence[Path], sheet: Path | None) -> Iterator[str]:
    """Yields the lines for people: a table of the frames, the cost, and the written files."""
    yield f"{view.name}: {describe_video(view)}"
    yield ""
    names = [path.name for path in files] or [""] * len(view.video.frames)
    head = ("frame", "index", "asked for", "shown from", "exact", "file" if files else "")
    rows = [
        (str(number), *_format_cells(frame), name)
        for number, (frame, name) in enumerate(zip(view.video.frames, names, strict=True))
    ]
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        right = (f"{cell:>{width}}" for cell, width in zip(row[:4], widths, strict=False))
        yield "  ".join((*right, f"{row[4]:<{widths[4]}}", row[5])).rstrip()
    yield ""
    yield _describe_cost(view)
    if files:
        yield f"wrote {len(files)} {'file' if len(files) == 1 else 'files'} to {files[0].parent}"
    if sheet:
        yield f"wrote {sheet}"


def list_notes(view: FramesView) -> Iterator[str]:
    """Yields warnings as sentences."""
    yield from (warning.message for warning in view.warnings)
    marked = sum(not frame.exact for frame in view.video.frames)
    if marked and view.sampling.method != "keyframe":
        yield (
            f"{marked} of {len(view.video.frames)} frames are not exact: the file is damaged, or "
            "its timestamps contradict each other"
        )


def describe_video(view: FramesView) -> str:
    """Returns duration, size and encoding of the video as one line."""
    info = view.video.info
    kind = f"{info.codec} in {info.format}" if info.codec else info.format
    parts = (
        f"{info.duration_s:.3f} s" if info.duration_s is not None else None,
        f"{info.width}x{info.height}",
        kind,
        _describe_dynamic_range(info),
        f"{info.fps:.4g} frames a second" if info.fps else None,
        f"{view.size_bytes:,} bytes",
    )
    return ", ".join(part for part in parts if part)


def _describe_dynamic_range(info: VideoInfo) -> str | None:
    if info.dynamic_range == "sdr":
        return None
    return f"{info.dynamic_range.upper()}, {'mapped to SDR' if info.tone_mapped else 'not mapped to SDR'}"


def _format_cells(frame: Frame) -> tuple[str, str, str, str]:
    index = "-" if frame.index is None else str(frame.index)
    return index, f"{frame.asked_s:.3f} s", f"{frame.pts_s:.3f} s", _describe_exactness(frame)


def _describe_exactness(frame: Frame) -> str:
    """Returns how far a keyframe, taken in place of the exact frame, lies from the instant."""
    if frame.exact:
        return "yes"
    off_s = frame.pts_s - frame.asked_s
    return f"no, {abs(off_s):.3f} s {'late' if off_s > 0 else 'early'}" if off_s else "no"


def _describe_cost(view: FramesView) -> str:
    if not view.requests:
        return f"read from this machine, nothing fetched; {view.seconds:.2f} s"
    share = 100 * view.fetched_bytes / view.size_bytes
    requests = "1 request" if view.requests == 1 else f"{view.requests} requests"
    return (
        f"fetched {view.fetched_bytes:,} of {view.size_bytes:,} bytes ({share:.3g}%) "
        f"in {requests}; {view.seconds:.2f} s"
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
