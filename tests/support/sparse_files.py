"""A sparse copy of a file, and clips long enough for that to matter."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from videoqa_worker.frames import Span, Spans

HEAD_BYTES = 64 << 10


class SparseCopy:
    """A SparseFile that copies the needed spans of a real file, as a source does from a server."""

    def __init__(
        self,
        original: Path,
        path: Path,
        *,
        head_bytes: int = HEAD_BYTES,
        on_ensure: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the first `head_bytes`; `on_ensure` is called at the beginning of each `ensure`."""
        self.path = path
        self.size_bytes = original.stat().st_size
        self.present = Spans()
        self.asked: list[tuple[Span, ...]] = []
        """The arguments of each `ensure`."""
        self.rounds: list[list[Span]] = []
        """The spans that each `ensure` copied, if any were missing."""
        self._original = original
        self._on_ensure = on_ensure
        with path.open("wb") as file:
            file.truncate(self.size_bytes)
        if head_bytes:
            self.ensure([(0, head_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        self.asked.append(tuple(spans))
        self._on_ensure()
        wanted = Spans([(max(0, a), min(b, self.size_bytes)) for a, b in spans])
        missing = [gap for span in wanted for gap in self.present.missing(*span)]
        if not missing:
            return
        with self._original.open("rb") as source, self.path.open("r+b") as target:
            for start, end in missing:
                os.pwrite(target.fileno(), os.pread(source.fileno(), end - start, start), start)
                self.present.add(start, end)
        self.rounds.append(missing)

    def open_file(self) -> int:
        return os.open(self.path, os.O_RDONLY)

    @property
    def requests(self) -> int:
        return sum(map(len, self.rounds))


def make_empty_copy(
    original: Path, folder: Path, on_ensure: Callable[[], None] = lambda: None
) -> SparseCopy:
    """Makes a copy of which nothing is present until a reader asks for it."""
    path = folder / f"sparse-{os.urandom(4).hex()}-{original.name}"
    return SparseCopy(original, path, head_bytes=0, on_ensure=on_ensure)


def write_long_clip(path: Path, *, copies: int, options: dict[str, str] | None = None) -> None:
    """Writes 10 busy seconds `copies` times in a row: 25 fps, a keyframe every 2.4 s."""
    segment = path.with_name("segment.mp4")
    noise = np.random.default_rng(7).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with av.open(str(segment), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 256, 192, "yuv420p", 60
        for n in range(250):
            pixels = np.ascontiguousarray(noise[n : n + 192, 2 * n % 200 :][:, :256])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    _repeat(segment, path, copies, options or {})


def _repeat(segment: Path, path: Path, copies: int, options: dict[str, str]) -> None:
    with av.open(str(path), "w", options=options) as out:
        target = None
        for copy in range(copies):
            with av.open(str(segment)) as source:
                stream = source.streams.video[0]
                target = target or out.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts += copy * (stream.duration or 0)
                        packet.dts += copy * (stream.duration or 0)
                        packet.stream = target
                        out.mux(packet)
