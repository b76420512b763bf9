"""Cuts of films: those that videoqa finds by keyframes, against PySceneDetect's content detector, and the CPU time.

    python benchmarks/frames/shots.py CLIPS [--peers-python /path/to/python] [--seconds 75] [--seed 1] [--json]

CLIPS is a folder of videos. Each is searched as it is, and films are made of them: parts of 1.5 to 7 s (`short`: 0.8
to 2 s; `long`: 5 to 14 s) in random order, some mirrored or enlarged, encoded as `FILMS` says. The truth is what
PySceneDetect finds: a cut is right if one of its own is within half a second, each counted once. Cuts in the last
0.6 s are left out, which is the detector's own shortest shot. CPU time is that of a whole call on a file in the page
cache, opening included, without imports. Films with the warning `shots_uncertain` are counted apart.

`--peers-python` has scenedetect[opencv-headless]; the films are kept in the folder of the benchmarks' clips.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

from lib.clips import default_cache  # noqa: E402

from videoqa.contract import Sampling  # noqa: E402
from videoqa_worker.frames import sample_segments  # noqa: E402

FPS, SIDE = 25, (640, 360)
MOST_PICTURES = 300
NEAR_S, SHORTEST_S = 0.5, 0.6
USUAL, SHORT, LONG = (1.5, 7.0), (0.8, 2.0), (5.0, 14.0)
FAST = {"preset": "veryfast"}
FIXED = "scenecut=0:keyint={0}:min-keyint={0}"
FILMS: dict[str, tuple[str, str, dict[str, str], tuple[float, float]]] = {
    "x264.mp4": ("libx264", "mp4", FAST, USUAL),
    "x264-medium.mp4": ("libx264", "mp4", {"preset": "medium"}, USUAL),
    "x264-720p.mp4": ("libx264", "mp4", FAST, USUAL),
    "x264-2s.mp4": ("libx264", "mp4", {**FAST, "x264-params": "keyint=50"}, USUAL),
    "x264-short.mp4": ("libx264", "mp4", FAST, SHORT),
    "x264-long.mp4": ("libx264", "mp4", FAST, LONG),
    "x264.mkv": ("libx264", "matroska", FAST, USUAL),
    "x264.ts": ("libx264", "mpegts", FAST, USUAL),
    "x264-low.mp4": ("libx264", "mp4", {**FAST, "crf": "32"}, USUAL),
    "x265.mp4": ("libx265", "mp4", {"preset": "fast", "x265-params": "log-level=none"}, USUAL),
    "x264-fixed-2s.mp4": ("libx264", "mp4", {**FAST, "x264-params": FIXED.format(50)}, USUAL),
    "x264-fixed-10s.mp4": ("libx264", "mp4", {**FAST, "x264-params": FIXED.format(250)}, USUAL),
    "mpeg2.ts": ("mpeg2video", "mpegts", {"g": "12", "b": "2M"}, USUAL),
    "vp9.webm": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "b": "1M"}, USUAL),
}
"""Codec, container, options and lengths of the shots of each film."""
PEER = """
import json, sys, time
from importlib.metadata import version
from scenedetect import ContentDetector, detect
begun = time.process_time()
scenes = detect(sys.argv[1], ContentDetector())
spent = time.process_time() - begun
print(json.dumps([[one[0].seconds for one in scenes][1:], spent, version("scenedetect")]))
"""
Pictures = list[npt.NDArray[np.uint8]]


def read_clip(path: Path) -> Pictures:
    """Returns the first pictures of a clip, uint8[H, W, 3]."""
    pictures: Pictures = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            small = frame.to_ndarray(format="rgb24", width=SIDE[0], height=SIDE[1])
            pictures.append(small.astype(np.uint8, copy=False))
            if len(pictures) == MOST_PICTURES:
                break
    return pictures


def draw_film(
    clips: list[Pictures], lengths: tuple[float, float], seconds: float, seed: str
) -> Iterator[Any]:
    """Yields the pictures of a film; a part longer than its clip plays forwards and backwards."""
    dice = random.Random(seed)
    drawn, last = 0, -1
    while drawn < seconds * FPS:
        last = dice.choice([n for n in range(len(clips)) if n != last])
        clip, count = clips[last], round(dice.uniform(*lengths) * FPS)
        first, zoom = dice.randrange(max(1, len(clip) - count)), dice.choice([1.0, 1.0, 1.5])
        is_mirrored, turn = dice.random() < 0.5, max(1, 2 * len(clip) - 2)
        for n in range(count):
            at = (first + n) % turn
            picture = clip[at if at < len(clip) else turn - at]
            picture = picture[:, ::-1] if is_mirrored else picture
            if zoom > 1:
                high, wide = (round(length / zoom) for length in picture.shape[:2])
                part = np.ascontiguousarray(picture[36 : 36 + high, 128 : 128 + wide])
                picture = np.asarray(Image.fromarray(part).resize(SIDE, Image.Resampling.BILINEAR))
            yield np.ascontiguousarray(picture)
        drawn += count


def write_film(path: Path, clips: list[Pictures], seconds: float, seed: int) -> None:
    """Encodes one of `FILMS`."""
    codec, container_format, options, lengths = FILMS[path.name]
    side = (1280, 720) if "720p" in path.name else SIDE
    partial = path.with_name(path.name + ".part")
    with av.open(str(partial), "w", format=container_format) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=FPS, options=options))
        stream.width, stream.height = side
        stream.pix_fmt = "yuv420p"
        for n, pixels in enumerate(draw_film(clips, lengths, seconds, f"{seed} {path.name}")):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if side != SIDE:
                frame = frame.reformat(width=side[0], height=side[1])
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    partial.rename(path)


def find_cuts(path: Path) -> tuple[list[float], float, bool, float]:
    """Returns our cuts, the film's end, whether they are said to be uncertain, and the CPU time.

    The first segment comes after the search; its CPU time includes opening, the timeline, and that segment's one frame.
    """
    sampling = Sampling(
        method="segment", segment="shots", segment_s=86_400, min_segment_s=SHORTEST_S, frames=1
    )
    begun = time.process_time()
    segments = sample_segments(path, sampling)
    next(segments)
    spent = time.process_time() - begun
    del segments
    parts = list(sample_segments(path, sampling))
    codes = [warn.code for warn in parts[-1].video.warnings]
    cuts = [one.start_s for one in parts[1:]]
    return cuts, parts[-1].end_s, "shots_uncertain" in codes, spent


def count_right(ours: list[float], theirs: list[float]) -> int:
    """Returns how many cuts are the same, each counted once."""
    left = list(theirs)
    for cut in ours:
        near = min(left, key=lambda other: abs(other - cut), default=None)
        if near is not None and abs(near - cut) <= NEAR_S:
            left.remove(near)
    return len(theirs) - len(left)


def measure(path: Path, python: str, rounds: int) -> dict[str, Any]:
    """Measures one film in turns; CPU times are the least of the rounds."""
    ours_s, theirs_s = [], []
    for _ in range(rounds):
        answer = subprocess.run(
            [python, "-c", PEER, str(path)], capture_output=True, text=True, check=True
        )
        theirs, spent, version = json.loads(answer.stdout.splitlines()[-1])
        theirs_s.append(spent)
        ours, end_s, is_uncertain, spent = find_cuts(path)
        ours_s.append(spent)
    ours, theirs = ([cut for cut in cuts if cut <= end_s - SHORTEST_S] for cuts in (ours, theirs))
    return {
        "film": path.name,
        "theirs": len(theirs),
        "ours": len(ours),
        "right": count_right(ours, theirs),
        "uncertain": is_uncertain,
        "cpu_s": round(min(ours_s), 3),
        "peer_cpu_s": round(min(theirs_s), 3),
        "peer": f"scenedetect {version}",
    }


def sum_up(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns F1 and the ratio of CPU times of these films together."""
    ours, theirs, right = (sum(row[name] for row in rows) for name in ("ours", "theirs", "right"))
    spent, peer = (sum(row[name] for row in rows) for name in ("cpu_s", "peer_cpu_s"))
    return {
        "films": len(rows),
        "cuts": theirs,
        "f1": round(2 * right / max(1, ours + theirs), 3),
        "precision": round(right / max(1, ours), 3),
        "recall": round(right / max(1, theirs), 3),
        "cpu_share": round(spent / max(1e-9, peer), 4),
    }


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sources = sorted(path for path in args.clips.iterdir() if path.is_file())
    folder = default_cache() / f"shots-{args.seed}-{args.seconds:g}"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in FILMS if not (folder / name).exists()]
    clips = [read_clip(path) for path in sources] if missing else []
    for name in missing:
        write_film(folder / name, clips, args.seconds, args.seed)
    rows = []
    for path in [*(folder / name for name in FILMS), *sources]:
        rows.append(measure(path, args.peers_python, args.rounds))
        if not args.json:
            print(*rows[-1].values(), sep="\t", flush=True)
    found = {
        "machine": platform.machine(),
        "rows": rows,
        "sure": sum_up([row for row in rows if not row["uncertain"]]),
        "uncertain": sum_up([row for row in rows if row["uncertain"]]),
    }
    print(json.dumps(found, indent=1) if args.json else f"{found['sure']}\n{found['uncertain']}")


if __name__ == "__main__":
    main()
