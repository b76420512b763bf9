"""Readers that `remote.py` measures: each takes `count` pictures, uniform in time, from a URL.

Readers that give a file object are all read by the same PyAV loop: seek to the keyframe before a
target, decode up to it. Imports are inside the functions: a missing peer is named, not fatal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PACKAGES", "READERS"]

Pictures = list[np.ndarray]
"""Each uint8[H, W, 3], RGB."""


def videoqa(url: str, count: int) -> Pictures:
    """Reads as a worker does: planned ranges, exact pictures."""
    return _videoqa(url, count, "uniform")


def videoqa_keyframe(url: str, count: int) -> Pictures:
    """The nearest keyframe of each target."""
    return _videoqa(url, count, "keyframe")


def _videoqa(url: str, count: int, method: Any) -> Pictures:
    from videoqa.contract import Sampling
    from videoqa_worker.frames import sample_frames
    from videoqa_worker.settings import SourceConfig
    from videoqa_worker.sources import Sources

    with (
        tempfile.TemporaryDirectory() as spool,
        Sources(SourceConfig(spool_dir=Path(spool), private_addresses=True)) as sources,
        sources.open(url) as copy,
    ):
        taken = sample_frames(copy, Sampling(frames=count, method=method))
        return [frame.pixels for frame in taken.frames]


def download(url: str, count: int) -> Pictures:
    """All of it with requests into a file, then videoqa's sampler."""
    import requests

    from videoqa.contract import Sampling
    from videoqa_worker.frames import sample_frames

    with tempfile.NamedTemporaryFile() as file:
        with requests.get(url, stream=True, timeout=60) as response:
            for chunk in response.iter_content(1 << 20):
                file.write(chunk)
        file.flush()
        taken = sample_frames(Path(file.name), Sampling(frames=count))
        return [frame.pixels for frame in taken.frames]


def ffmpeg_http(url: str, count: int) -> Pictures:
    """FFmpeg's own HTTP, by PyAV, its connection kept."""
    return _by_pyav(url, count, {"multiple_requests": "1"})


def fsspec_file(url: str, count: int) -> Pictures:
    import fsspec

    with fsspec.open(url) as file:
        return _by_pyav(file, count)


def obstore_reader(url: str, count: int) -> Pictures:
    import obstore
    from obstore.store import HTTPStore

    place, _, name = url.rpartition("/")
    store = HTTPStore.from_url(place, client_options={"allow_http": True})
    return _by_pyav(_Bytes(obstore.open_reader(store, name)), count)


class _Bytes:
    """Obstore's reader gives buffers of its own, PyAV wants bytes."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, count_bytes: int) -> bytes:
        return bytes(self._reader.read(count_bytes))

    def seek(self, to: int, whence: int = 0) -> int:
        return int(self._reader.seek(to, whence))

    def tell(self) -> int:
        return int(self._reader.tell())


def smart_open_file(url: str, count: int) -> Pictures:
    import smart_open

    with smart_open.open(url, "rb") as file:
        return _by_pyav(file, count)


def torchcodec_url(url: str, count: int) -> Pictures:
    """FFmpeg's own HTTP; `approximate`, since `exact` would read every byte to begin with."""
    return _by_torchcodec(url, count, "approximate")


def torchcodec_fsspec(url: str, count: int) -> Pictures:
    import fsspec

    with fsspec.open(url) as file:
        return _by_torchcodec(file, count, "exact")


def _by_torchcodec(source: Any, count: int, seek_mode: Any) -> Pictures:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        source, seek_mode=seek_mode, dimension_order="NHWC", num_ffmpeg_threads=1
    )
    total = decoder.metadata.num_frames
    batch = decoder.get_frames_at([k * total // count for k in range(count)])
    return list(batch.data.numpy())


def _by_pyav(source: Any, count: int, options: dict[str, str] | None = None) -> Pictures:
    import av

    pictures: Pictures = []
    with av.open(source, options=options or {}) as container:
        stream = container.streams.video[0]
        step = 1 / (stream.average_rate * stream.time_base)
        for k in range(count):
            target = (stream.start_time or 0) + round((k * stream.frames // count) * step)
            container.seek(target, stream=stream)
            picture = next(p for p in container.decode(stream) if p.pts >= target)
            pictures.append(picture.to_ndarray(format="rgb24"))
    return pictures


READERS: dict[str, Callable[[str, int], Pictures]] = {
    "videoqa": videoqa,
    "videoqa-keyframe": videoqa_keyframe,
    "download": download,
    "ffmpeg-http": ffmpeg_http,
    "fsspec": fsspec_file,
    "obstore": obstore_reader,
    "smart_open": smart_open_file,
    "torchcodec-url": torchcodec_url,
    "torchcodec-fsspec": torchcodec_fsspec,
}

PACKAGES = {
    "download": ("requests", "requests"),
    "fsspec": ("fsspec", "fsspec[http]"),
    "obstore": ("obstore", "obstore"),
    "smart_open": ("smart_open", "smart_open[http]"),
    "torchcodec-url": ("torchcodec", "torch==2.13.0 torchcodec==0.13.*"),
    "torchcodec-fsspec": ("torchcodec", "torch==2.13.0 torchcodec==0.13.*"),
}
"""The module that a peer imports, and what to give to `pip install` for it."""
