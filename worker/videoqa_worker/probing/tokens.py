"""Prompt tokens: counted by the model's own processor, where that is on this machine.

Never goes to the network. Black pictures of the video's size stand for its frames; a prompt grows by
the same tokens with each frame, so two of them are measured and the rest is a line through both.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videoqa.errors import VideoQAError
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.shares import Stated

if TYPE_CHECKING:
    from videoqa_worker.prompt import Prompter

__all__ = ["Seen", "Tokens"]

Seen = tuple[str, int, int, int]
"""Kind of an input, its frames, width and height."""


class Tokens:
    """Thread-safe; transformers is imported at the first question, if the model is here."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._prompter: Prompter | None = None
        self._tried = False
        self._measured = cache(self._measure)

    def stated(self, model: str | None) -> Stated:
        """What the model's processor says about frames."""
        prompter = self._of(model)
        return Stated(*prompter.stated_sampling) if prompter is not None else Stated()

    def count(self, model: str | None, question: str, seen: Sequence[Seen]) -> int | None:
        """Of one prompt; None: not known here."""
        if self._of(model) is None:
            return None
        with self._lock:
            if len(seen) != 1 or seen[0][1] < 3:
                return self._measured(question, tuple(seen))
            kind, frames, width, height = seen[0]
            one = self._measured(question, ((kind, 1, width, height),))
            two = self._measured(question, ((kind, 2, width, height),))
        return None if one is None or two is None else one + (frames - 1) * (two - one)

    def _measure(self, question: str, seen: tuple[Seen, ...]) -> int | None:
        from videoqa_worker.prompt import Media

        media = [
            Media(
                kind="image" if kind == "image" else "video",
                frames=tuple(np.zeros((height, width, 3), np.uint8) for _ in range(frames)),
                pts_s=None if kind == "image" else tuple(map(float, range(frames))),
            )
            for kind, frames, width, height in seen
        ]
        prompter = self._prompter
        with suppress(VideoQAError):
            return prompter.build(media, question).length if prompter is not None else None
        return None

    def _of(self, model: str | None) -> Prompter | None:
        if model not in (None, self._settings.model):
            return None
        with self._lock:
            if not self._tried:
                self._tried = True
                if _is_here(self._settings):
                    with suppress(VideoQAError, OSError, ValueError):
                        self._prompter = _load(self._settings)
            return self._prompter


def _is_here(settings: WorkerSettings) -> bool:
    if settings.server_url is not None:
        return False
    if Path(settings.model_source).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    name, revision = settings.model_source, settings.revision
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def _load(settings: WorkerSettings) -> Prompter:
    from transformers import AutoConfig

    from videoqa_worker.engine.processor import load_processor
    from videoqa_worker.prompt import Prompter

    hub: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if settings.revision:
        hub["revision"] = settings.revision
    config = AutoConfig.from_pretrained(settings.model_source, **hub)
    processor = load_processor(settings.model_source, config, **hub)
    return Prompter(processor, config, chat_template=settings.chat_template)
