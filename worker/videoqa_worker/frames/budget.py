"""The clock of one decoding: the caller's `check`, the deadline and the packet count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from videoqa.errors import DecodeTimeout, TooManyPackets
from videoqa_worker.frames.sparse_file import Media, Span, Spans
from videoqa_worker.settings import FrameLimits

__all__ = ["Awaited", "Watch", "no_check"]


def no_check() -> None:
    """The default `check`: nobody cancels."""


class Watch:
    """Ticked once a packet. It cannot interrupt the decoder inside one packet."""

    def __init__(self, limits: FrameLimits, check: Callable[[], None] = no_check) -> None:
        self._limits = limits
        self._check = check
        self._deadline_s = time.monotonic() + limits.decode_timeout_s
        self._packets = 0

    def tick(self) -> None:
        """Raises what `check` raises; DecodeTimeout; TooManyPackets after `max_packets`."""
        self._check()
        if time.monotonic() > self._deadline_s:
            raise DecodeTimeout(
                f"decoding took more than {self._limits.decode_timeout_s:g} s; "
                "ask for a shorter clip, or raise the worker's decode_timeout_s"
            )
        self._packets += 1
        if self._packets > self._limits.max_packets:
            raise TooManyPackets(
                f"the video has more than {self._limits.max_packets} packets; "
                "ask for it in parts, or raise the worker's max_packets"
            )

    def restart(self) -> None:
        """The deadline begins anew: what was done so far is a thing of its own."""
        self._deadline_s = time.monotonic() + self._limits.decode_timeout_s

    def waited(self, seconds: float) -> None:
        """So long was spent on something else than decoding."""
        self._deadline_s += seconds


class Awaited:
    """Media whose bytes are waited for off the clock: fetching has a deadline of its own."""

    def __init__(self, media: Media, watch: Watch) -> None:
        self._media = media
        self._watch = watch
        self.path: Path = media.path
        self.size_bytes: int = media.size_bytes

    @property
    def present(self) -> Spans:
        return self._media.present

    def ensure(self, spans: Sequence[Span]) -> None:
        begun_s = time.monotonic()
        self._media.ensure(spans)
        self._watch.waited(time.monotonic() - begun_s)
