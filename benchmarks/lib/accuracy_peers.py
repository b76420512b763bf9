"""The readers that `accuracy.py` compares, each as a process that answers requests.

A request is a line of JSON on stdin, `{"path", "count", "out"}`. The pictures go to `out`, a .npz
file, in the order of the instants; then a line that begins with `MARK` says so, or names the error.
A peer is used as its manual has it; where it can go by time it is asked by time. Knows nothing of
what would be right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.samplers import SAMPLERS, Pictures

__all__ = ["MARK", "MODULES", "READERS"]

MARK = "accuracy:"

Answer = tuple[Pictures, list[bool]]
"""One picture an instant, and whether the reader calls it exact. Peers do not say: True."""


def videoqa(path: Path, count: int) -> Answer:
    from videoqa.contract import Sampling
    from videoqa_worker.frames import sample_frames

    video = sample_frames(path, Sampling(frames=count))
    asked = np.array([frame.asked_s for frame in video.frames])
    duration_s = video.info.duration_s or 0.0
    at_s = [k * duration_s / count + 1e-9 for k in range(count)]
    chosen = [
        video.frames[int(np.searchsorted(asked, instant_s, "right")) - 1] for instant_s in at_s
    ]
    return [frame.pixels for frame in chosen], [frame.exact for frame in chosen]


def opencv_read_by_count(path: Path, count: int) -> Answer:
    """Every picture in turn, counted; then number k * total // n, of those that came."""
    pictures, _ = _read_all(path)
    return _sure([pictures[k * len(pictures) // count] for k in range(count)])


def opencv_read_by_time(path: Path, count: int) -> Answer:
    """Every picture in turn, with POS_MSEC; the last lasts as long as the mean."""
    pictures, at_ms = _read_all(path)
    since = np.array(at_ms) - at_ms[0]
    step = since[-1] / (len(since) - 1) if len(since) > 1 else 40.0
    instants = [k * (since[-1] + step) / count + 1e-3 for k in range(count)]
    places = np.searchsorted(since, instants, "right") - 1
    return _sure([pictures[place] for place in places])


def _read_all(path: Path) -> tuple[Pictures, list[float]]:
    import cv2

    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    pictures, at_ms = [], []
    while len(pictures) < 1000:
        there, picture = video.read()
        if not there:
            break
        pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        at_ms.append(video.get(cv2.CAP_PROP_POS_MSEC))
    if not pictures:
        raise ValueError("no picture came")
    return pictures, at_ms


def torchcodec_by_time(path: Path, count: int) -> Answer:
    """Exact mode, `get_frame_played_at`: the picture on screen."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    about = decoder.metadata
    a, b = about.begin_stream_seconds, about.end_stream_seconds
    instants = [a + k * (b - a) / count + 1e-6 for k in range(count)]
    return _sure([decoder.get_frame_played_at(at_s).data.numpy() for at_s in instants])


def decord2(path: Path, count: int) -> Answer:
    """Takes pictures one by one.

    Of narrow pictures 3.4.0 hands out padded rows as a fourth channel, for which `get_batch` has no
    room. The padding is taken off here, to see which picture it is.
    """
    from decord import VideoReader, cpu

    reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
    places = [k * len(reader) // count for k in range(count)]
    return _sure([_unpadded(reader[place].asnumpy()) for place in places])


def _unpadded(pixels: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    return rows[:, : 3 * width].reshape(height, width, 3)


def _counted(name: str) -> Callable[[Path, int], Answer]:
    return lambda path, count: _sure(SAMPLERS[name](path, count))


def _sure(pictures: Sequence[np.ndarray]) -> Answer:
    return list(pictures), [True] * len(pictures)


READERS: dict[str, Callable[[Path, int], Answer]] = {
    "videoqa": videoqa,
    "guide": _counted("guide"),
    "guide-pyav": _counted("guide-pyav"),
    "opencv-read-count": opencv_read_by_count,
    "opencv-read-time": opencv_read_by_time,
    "opencv-seek": _counted("opencv-seek"),
    "torchcodec-time": torchcodec_by_time,
    "torchcodec-count": _counted("torchcodec"),
    "decord2": decord2,
}
MODULES = {
    "guide": "cv2",
    "guide-pyav": "av",
    "opencv-read-count": "cv2",
    "opencv-read-time": "cv2",
    "opencv-seek": "cv2",
    "torchcodec-time": "torchcodec",
    "torchcodec-count": "torchcodec",
    "decord2": "decord",
}
"""Module that must be importable for a peer."""


def _answer(name: str, request: dict[str, Any]) -> str:
    try:
        pictures, exact = READERS[name](Path(request["path"]), request["count"])
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        return f"{type(error).__name__}: {str(error)[:120]}".replace("\n", " ")
    named = {f"{at:04}": np.asarray(picture) for at, picture in enumerate(pictures)}
    np.savez(request["out"], exact=np.array(exact, dtype=bool), **named)
    return ""


def _serve(name: str) -> None:
    if name in MODULES:
        __import__(MODULES[name])
    print(f"{MARK}ready", flush=True)
    for line in sys.stdin:
        print(f"\n{MARK}{_answer(name, json.loads(line))}", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
