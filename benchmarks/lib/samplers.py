"""Samplers that are measured: each takes `count` pictures of a video, uniform in time, as RGB of full size.

Peers get the setting in which they use the least CPU time (one decoding thread, where that can be
set), but for the guide, which is as people copy it. Where the result is exact, picture k of n is
number `k * total // n`. Imports are inside the functions: a missing peer is named, not fatal.
"""

from __future__ import annotations

import atexit
import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PACKAGES", "READS_ALL", "SAMPLERS", "expected"]

Pictures = list[np.ndarray]
"""Each uint8[H, W, 3], RGB."""


def videoqa(path: Path, count: int) -> Pictures:
    from videoqa.contract import Sampling
    from videoqa_worker.frames import sample_frames

    return [frame.pixels for frame in sample_frames(path, Sampling(frames=count)).frames]


def videoqa_pool(path: Path, count: int) -> Pictures:
    """Samples as a worker does: in decoding processes, one a core, through shared memory."""
    from videoqa.contract import Sampling
    from videoqa_worker.frames import CompleteFile

    taken = _decoders().sample(CompleteFile(path), Sampling(frames=count))
    return [frame.pixels for frame in taken.frames]


@cache
def _decoders() -> Any:
    """One pool a process, as a worker has."""
    from videoqa_worker.decoding.decoders import Decoders
    from videoqa_worker.settings import FrameLimits

    decoders = Decoders(FrameLimits())
    decoders.start()
    atexit.register(decoders.close)
    return decoders


def told(path: Path, count: int) -> Pictures:
    """Decodes the wanted pictures and their references, and nothing else: the floor.

    It is told beforehand which pictures are wanted and where keyframes are; that holds for these clips alone.
    """
    import av
    from lib.clips import FPS, GOP

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder, tick = stream.codec_context, stream.time_base
        decoder.thread_type, decoder.thread_count = "NONE", 1
        seconds = stream.duration * tick if stream.duration else container.duration / av.time_base
        total = round(seconds * FPS)
        wanted = [k * total // count for k in range(count)]
        found: dict[int, np.ndarray] = {}
        for key, last in {number // GOP * GOP: number for number in wanted}.items():
            container.seek(round(key / FPS / tick), stream=stream)
            decoder.flush_buffers()
            for picture in _decoded(container, stream, wanted, last):
                number = round(picture.pts * tick * FPS)
                if number in wanted and number not in found:
                    found[number] = picture.to_ndarray(format="rgb24", threads=1)
        return [found[number] for number in wanted]


def _decoded(container: Any, stream: Any, wanted: list[int], last: int) -> Iterator[Any]:
    """Up to the picture `last`; most that nothing refers to are left out."""
    from lib.clips import FPS

    for packet in container.demux(stream):
        if packet.pts is None or packet.dts * stream.time_base * FPS > last:
            break
        needed = round(packet.pts * stream.time_base * FPS) in wanted
        stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        yield from stream.codec_context.decode(packet)
    yield from stream.codec_context.decode(None)


def guide(path: Path, count: int) -> Pictures:
    """Runs the Hugging Face guide "video-text-to-text", less its download.

    It reads, converts and wraps every picture, and keeps every (total // n)-th.
    """
    import cv2
    from PIL import Image

    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    kept = []
    for number in range(total):
        there, picture = video.read()
        image = Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        if there and number % (total // count) == 0:
            kept.append(image)
    video.release()
    return [np.asarray(image) for image in kept[:count]]


def guide_pyav(path: Path, count: int) -> Pictures:
    """Runs the PyAV loop of the model pages: decodes every picture, converts those that are kept."""
    import av

    with av.open(str(path)) as container:
        total = container.streams.video[0].frames
        wanted = set(np.arange(0, total, total / count).astype(int).tolist())
        pictures = enumerate(container.decode(video=0))
        return [p.to_ndarray(format="rgb24") for number, p in pictures if number in wanted]


def opencv_grab(path: Path, count: int) -> Pictures:
    """Decodes all up to the last target, converts the targets."""
    import cv2

    video = _open_cv(path)
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = [k * total // count for k in range(count)]
    kept = []
    for number in range(wanted[-1] + 1):
        if not video.grab():
            break
        if number in wanted:
            kept.append(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB))
    return kept


def opencv_seek(path: Path, count: int) -> Pictures:
    import cv2

    video = _open_cv(path)
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    kept = []
    for k in range(count):
        video.set(cv2.CAP_PROP_POS_FRAMES, k * total // count)
        there, picture = video.read()
        if there:
            kept.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return kept


def _open_cv(path: Path) -> Any:
    import cv2

    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


def torchcodec(path: Path, count: int) -> Pictures:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        str(path), seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1
    )
    total = decoder.metadata.num_frames
    batch = decoder.get_frames_at([k * total // count for k in range(count)])
    return list(batch.data.numpy())


def decord2(path: Path, count: int) -> Pictures:
    from decord import VideoReader, cpu

    reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
    total = len(reader)
    return list(reader.get_batch([k * total // count for k in range(count)]).asnumpy())


def ffmpeg_seek(path: Path, count: int) -> Pictures:
    """One process a picture: `-ss` half a picture before it, so that rounding cannot miss it."""
    about = _probe(path)
    kept = []
    for k in range(count):
        number = k * about["total"] // count
        start = ["-ss", f"{max(0, number - 0.5) / about['rate']:.6f}"] if number else []
        kept += _ffmpeg(about, [*start, "-i", str(path), "-frames:v", "1"])
    return kept


def ffmpeg_select(path: Path, count: int) -> Pictures:
    """One process that decodes all up to the last target."""
    about = _probe(path)
    wanted = "+".join(f"eq(n\\,{k * about['total'] // count})" for k in range(count))
    chosen = ["-vf", f"select={wanted}", "-fps_mode", "passthrough", "-frames:v", str(count)]
    return _ffmpeg(about, ["-i", str(path), *chosen])


def _probe(path: Path) -> dict[str, Any]:
    entries = ["-show_entries", "stream=width,height,r_frame_rate:format=duration"]
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json", *entries]
    output = subprocess.run([*command, str(path)], check=True, capture_output=True)
    found = json.loads(output.stdout)
    stream = found["streams"][0]
    number, per_s = map(int, stream["r_frame_rate"].split("/"))
    rate = number / per_s
    return {**stream, "rate": rate, "total": round(float(found["format"]["duration"]) * rate)}


def _ffmpeg(about: dict[str, Any], arguments: list[str]) -> Pictures:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", *arguments]
    raw = ["-threads", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    output = subprocess.run([*command, *raw], check=True, capture_output=True).stdout
    return list(np.frombuffer(output, np.uint8).reshape(-1, about["height"], about["width"], 3))


SAMPLERS: dict[str, Callable[[Path, int], Pictures]] = {
    "videoqa": videoqa,
    "videoqa-pool": videoqa_pool,
    "told": told,
    "guide": guide,
    "guide-pyav": guide_pyav,
    "opencv-grab": opencv_grab,
    "opencv-seek": opencv_seek,
    "torchcodec": torchcodec,
    "decord2": decord2,
    "ffmpeg-seek": ffmpeg_seek,
    "ffmpeg-select": ffmpeg_select,
}

READS_ALL = frozenset({"guide", "guide-pyav", "opencv-grab", "ffmpeg-select"})
"""Their cost grows with the video and hardly with the pictures asked for."""

PACKAGES = {
    "videoqa-pool": ("psutil", "psutil"),
    "guide": ("cv2", "opencv-python-headless pillow"),
    "opencv-grab": ("cv2", "opencv-python-headless"),
    "opencv-seek": ("cv2", "opencv-python-headless"),
    "torchcodec": ("torchcodec", "torch==2.13.0 torchcodec==0.13.*"),
    "decord2": ("decord", "decord2"),
}
"""The module that a peer imports, and what to give to `pip install` for it. psutil tells the CPU time
of processes that stay."""


def expected(sampler: str, total: int, count: int) -> list[int]:
    """The numbers of the pictures that this sampler means to return."""
    if sampler == "guide":
        return [k * (total // count) for k in range(count)]
    return [k * total // count for k in range(count)]
