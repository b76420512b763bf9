"""A reader that stops amid a video's packets leaves nothing behind in the allocator.

Sampling does so 2 to 16 times a video, and a small block amid the heap also keeps the free pages
around it. The allocator counts what is in use, at which resident memory only hints.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from support.videos import Recipe

from videoqa_worker.frames import CompleteFile, open_video
from videoqa_worker.frames.container.demuxer import read_packets
from videoqa_worker.settings import DEFAULT_LIMITS

MakeClip = Callable[[Recipe], Path]

TIMES = 500
MOST_BYTES = 20
"""Bytes that each round may keep; the leak was a packet and a list of streams, 144 bytes."""
_SIZES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")


class _Mallinfo2(ctypes.Structure):
    """glibc's, of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*_SIZES, "fordblks", "keepcost"))


def in_use_bytes() -> int:
    """Returns the bytes that malloc has handed out, without Python's own pools."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        pytest.skip("the allocator does not tell what is in use: not glibc 2.33 or later")
    mallinfo2.restype = _Mallinfo2
    gc.collect()
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


@pytest.mark.parametrize("count", [1, 3, None], ids=["the first", "three", "all"])
def test_packets_leave_nothing_allocated_wherever_the_reader_stops(
    count: int | None, make_clip: MakeClip
) -> None:
    file = CompleteFile(make_clip(Recipe(frames=10)))
    with open_video(file, DEFAULT_LIMITS) as video:

        def grown_bytes() -> int:
            before = in_use_bytes()
            for _ in range(TIMES):
                video.container.seek(0)
                for _packet in islice(read_packets(video.container, video.stream), count):
                    pass
            return in_use_bytes() - before

        grown_bytes()  # what is kept once, for all packets to come
        assert grown_bytes() < TIMES * MOST_BYTES
