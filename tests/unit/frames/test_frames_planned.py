"""Frames of a file that lies elsewhere: the same ones, from a fraction of its bytes."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from support.sparse_files import HEAD_BYTES, SparseCopy, write_long_clip

from videoqa.contract import Sampling
from videoqa.errors import SourceUnavailable
from videoqa_worker.frames import SampledVideo, sample_frames

LAYOUTS = {
    "moov last": ("clip.mp4", {}),
    "moov first": ("clip.mp4", {"movflags": "faststart"}),
    "Matroska": ("clip.mkv", {}),
    "fragments": ("clip.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "transport stream": ("clip.ts", {}),
}
SAMPLINGS = [
    Sampling(frames=8),
    Sampling(frames=32),
    Sampling(method="keyframe", frames=8),
    Sampling(method="keyframe", frames=8, tolerance_s=0.3),
    Sampling(method="times", times=(0.0, 33.3, 150.0)),
]


@pytest.fixture(scope="module", params=LAYOUTS)
def long_clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes, about 30 MB."""
    name, options = LAYOUTS[request.param]
    path = tmp_path_factory.mktemp("long") / name
    write_long_clip(path, copies=18, options=options)
    return path


def same(left: SampledVideo, right: SampledVideo) -> bool:
    return left.info == right.info and all(
        (a.index, a.pts_s, a.exact, a.asked_s) == (b.index, b.pts_s, b.exact, b.asked_s)
        and (a.pixels == b.pixels).all()
        for a, b in zip(left.frames, right.frames, strict=True)
    )


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda s: f"{s.method}-{s.cap}")
def test_a_file_in_pieces_gives_the_frames_of_the_whole_file(
    long_clip: Path, sampling: Sampling, tmp_path: Path
) -> None:
    file = SparseCopy(long_clip, tmp_path / "sparse")
    assert same(sample_frames(file, sampling), sample_frames(long_clip, sampling))


@pytest.mark.parametrize("layout", ["moov last", "moov first"])
def test_bytes_are_those_of_the_gops_needed_and_the_index(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_long_clip(path, copies=18, options=LAYOUTS[layout][1])
    file = SparseCopy(path, tmp_path / "sparse")
    sample_frames(file, Sampling(frames=8))
    floor = HEAD_BYTES + needed_bytes(path, [k * 180 / 8 for k in range(8)])
    first_pictures = 256 << 10
    assert file.present.total_bytes <= 1.1 * floor + first_pictures
    assert file.requests <= 11
    assert len(file.rounds) <= 3, "head; index; pictures"


def needed_bytes(path: Path, instants_s: list[float]) -> int:
    """The index, and from each keyframe to the picture after the instant."""
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        entries = list(stream.index_entries)
        total = path.stat().st_size - sum(entry.size for entry in entries)
        for instant_s in instants_s:
            tick = round(instant_s / stream.time_base)
            keys = [n for n, e in enumerate(entries) if e.is_keyframe and e.timestamp <= tick]
            past = [n for n, e in enumerate(entries) if e.timestamp > tick]
            total += sum(e.size for e in entries[keys[-1] : past[0] + 1])
    return total


def test_keyframes_need_their_own_bytes_only(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_long_clip(path, copies=18)
    exact, near = (SparseCopy(path, tmp_path / f"sparse{n}") for n in range(2))
    sample_frames(exact, Sampling(frames=8))
    sample_frames(near, Sampling(method="keyframe", frames=8))
    assert near.present.total_bytes < exact.present.total_bytes


def test_a_failing_source_is_the_samplings_error(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_long_clip(path, copies=18)

    class Breaking(SparseCopy):
        def ensure(self, spans: list[tuple[int, int]]) -> None:  # type: ignore[override]
            if getattr(self, "rounds", None):
                raise SourceUnavailable("gone")
            super().ensure(spans)

    with pytest.raises(SourceUnavailable, match="gone"):
        sample_frames(Breaking(path, tmp_path / "sparse"), Sampling(frames=8))
