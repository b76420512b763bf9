"""What `videoqa frames` prints: a table for people, one JSON object for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videoqa_worker.cli.frames.view import View
from videoqa_worker.frames import Frame

__all__ = ["as_json", "details", "lines", "notes"]


def as_json(view: View, files: Sequence[Path], sheet: Path | None) -> dict[str, Any]:
    """See docs/reference/cli.md. Without --out, `file` is null."""
    info = view.video.info
    names: Sequence[Path | None] = files or [None] * len(view.video.frames)
    return {
        "source": view.source,
        "kind": view.kind,
        "duration_s": _rounded(info.duration_s),
        "fps": _rounded(info.fps),
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "format": info.format,
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


def lines(view: View, files: Sequence[Path], sheet: Path | None) -> Iterator[str]:
    """For people."""
    yield f"{view.name}: {details(view)}"
    yield ""
    names = [path.name for path in files] or [""] * len(view.video.frames)
    head = ("frame", "index", "asked for", "shown from", "exact", "file" if files else "")
    rows = [
        (str(number), *_cells(frame), name)
        for number, (frame, name) in enumerate(zip(view.video.frames, names, strict=True))
    ]
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        right = (f"{cell:>{width}}" for cell, width in zip(row[:4], widths, strict=False))
        yield "  ".join((*right, f"{row[4]:<{widths[4]}}", row[5])).rstrip()
    yield ""
    yield _cost(view)
    if files:
        yield f"wrote {len(files)} {'file' if len(files) == 1 else 'files'} to {files[0].parent}"
    if sheet:
        yield f"wrote {sheet}"


def notes(view: View) -> Iterator[str]:
    """Warnings in plain language."""
    yield from (warning.message for warning in view.warnings)
    marked = sum(not frame.exact for frame in view.video.frames)
    if marked and view.sampling.method != "keyframe":
        yield (
            f"{marked} of {len(view.video.frames)} frames are not exact: damaged, or the file's "
            "timestamps contradict themselves"
        )


def details(view: View) -> str:
    """How long, large and encoded."""
    info = view.video.info
    kind = f"{info.codec} in {info.format}" if info.codec else info.format
    parts = (
        f"{info.duration_s:.3f} s" if info.duration_s is not None else None,
        f"{info.width}x{info.height}",
        kind,
        f"{info.fps:.4g} frames a second" if info.fps else None,
        f"{view.size_bytes:,} bytes",
    )
    return ", ".join(part for part in parts if part)


def _cells(frame: Frame) -> tuple[str, str, str, str]:
    index = "-" if frame.index is None else str(frame.index)
    return index, f"{frame.asked_s:.3f} s", f"{frame.pts_s:.3f} s", _exactness(frame)


def _exactness(frame: Frame) -> str:
    """How far a keyframe that was taken instead lies from the instant."""
    if frame.exact:
        return "yes"
    off_s = frame.pts_s - frame.asked_s
    return f"no, {abs(off_s):.3f} s {'late' if off_s > 0 else 'early'}" if off_s else "no"


def _cost(view: View) -> str:
    if not view.requests:
        return f"a file of this machine, nothing fetched; {view.seconds:.2f} s"
    share = 100 * view.fetched_bytes / view.size_bytes
    requests = "1 request" if view.requests == 1 else f"{view.requests} requests"
    return (
        f"fetched {view.fetched_bytes:,} of {view.size_bytes:,} bytes ({share:.3g}%) "
        f"in {requests}; {view.seconds:.2f} s"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
