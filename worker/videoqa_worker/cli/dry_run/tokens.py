"""TokenCounter: prompt tokens by the model's own processor, if that is on this machine.

Never uses the network. Black pictures of the video's size, which take no memory, stand for its frames.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videoqa.contract import Sampling
from videoqa.errors import VideoQAError
from videoqa_worker.job.frame_budget import ProcessorDefaults
from videoqa_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from videoqa_worker.prompt import Prompter

__all__ = ["InputShape", "TokenCounter"]

InputShape = tuple[str, int, int, int, float | None]
"""Kind of an input, its number of frames, width, height and seconds."""


class TokenCounter:
    """Counts prompt tokens; thread-safe. Imports transformers at the first count, if the model is here."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._limits = settings.engine.frame_max_pixels, settings.engine.frame_max_tokens
        self._prompter: Prompter | None = None
        self._has_tried = False

    def stated_sampling(self, model: str | None) -> ProcessorDefaults:
        """Returns the numbers of frames that the model's processor states."""
        prompter = self._get_prompter(model)
        if prompter is None:
            return ProcessorDefaults(None, None, *self._limits)
        return ProcessorDefaults(*prompter.stated_sampling, *self._limits)

    def count(
        self,
        model: str | None,
        question: str,
        system: str,
        inputs: Sequence[InputShape],
        sampling: Sampling,
    ) -> int | None:
        """Returns the tokens of one prompt, or None if the model is not on this machine, or would refuse it."""
        prompter = self._get_prompter(model)
        if prompter is None:
            return None
        from videoqa_worker.prompt import FrameInput, PictureLimits

        media = [
            FrameInput(
                kind="image" if kind == "image" else "video",
                frames=(np.broadcast_to(np.uint8(0), (height, width, 3)),) * frames,
                pts_s=tuple(n * (seconds or frames) / frames for n in range(frames)),
                duration_s=seconds,
                limits=PictureLimits.of(sampling),
            )
            for kind, frames, width, height, seconds in inputs
        ]
        with self._lock, suppress(VideoQAError):
            return prompter.count_tokens(media, question, system=system)
        return None

    def _get_prompter(self, model: str | None) -> Prompter | None:
        if model not in (None, self._settings.model):
            return None
        with self._lock:
            if not self._has_tried:
                self._has_tried = True
                if _is_on_disk(self._settings):
                    with suppress(Exception):  # of any library: the worker itself tells
                        self._prompter = _load_prompter(self._settings)
            return self._prompter


def _is_on_disk(settings: WorkerSettings) -> bool:
    if settings.server.url is not None:
        return False
    if Path(settings.engine.checkpoint).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    name, revision = settings.engine.checkpoint, settings.revision
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def _load_prompter(settings: WorkerSettings) -> Prompter:
    from transformers import AutoConfig

    from videoqa_worker.engine import load_processor
    from videoqa_worker.prompt import Prompter

    hub: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if settings.revision:
        hub["revision"] = settings.revision
    config = AutoConfig.from_pretrained(settings.engine.checkpoint, **hub)
    processor = load_processor(settings.engine.checkpoint, config, **hub)
    return Prompter(processor, config, chat_template=settings.engine.chat_template)
