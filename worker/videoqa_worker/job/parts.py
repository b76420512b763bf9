"""AnsweringParts: the engine, the sources, the decoders and the pipeline over them, by a worker's settings.

A worker process builds them once (`service/runtime.py`), and so does a program that has the engine without a queue
(`library/`). Knows nothing of Redis, leases or results.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.engine import Answering, Engine, ServerEngine, VllmEngine
from videoqa_worker.job.pipeline import Pipeline
from videoqa_worker.job.shared_frames import SharedFrames
from videoqa_worker.prompt import PictureLimits
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import Sources

__all__ = ["AnsweringParts", "count_sequences"]


class AnsweringParts:
    """Resident objects of one process, ready to answer. A context manager: entering loads the model."""

    engine: Answering
    decoders: Decoders
    pipeline: Pipeline
    job_slots: int
    """Jobs that may run at a time."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        on_state: Callable[[str], None] = lambda state: None,
        watch: Callable[[Answering], Answering] = lambda engine: engine,
    ) -> None:
        """
        Arguments:
            on_state: called with what is going on while the model loads.
            watch: returns the engine to use in place of this one.
        """
        self._settings = settings
        self._on_state, self._watch = on_state, watch
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Loads the model and starts the decoding processes.

        Raises:
            ConfigurationError: the model cannot be loaded, or videos cannot be decoded on this machine.
        """
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all of it, in reverse order."""
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        settings = self._settings
        self.engine = engine = self._watch(_make_engine(settings, self._on_state))
        stack.callback(engine.close)
        engine.start()
        sources = stack.enter_context(
            Sources(settings.sources, s3_endpoint_url=settings.s3_endpoint_url)
        )
        self.job_slots = settings.count_job_slots(count_sequences(settings, engine))
        self.decoders = stack.enter_context(Decoders.of(settings, most=self.job_slots))
        self.decoders.start()
        self.pipeline = Pipeline(
            sources,
            self.decoders,
            engine,
            model_without_texts=None if settings.engine.summarizes else settings.model,
            limits=PictureLimits(
                settings.engine.frame_max_pixels, settings.engine.frame_max_tokens
            ),
            shared_frames=stack.enter_context(SharedFrames.of(settings)),
        )


def count_sequences(settings: WorkerSettings, engine: Answering) -> int:
    """Returns how many sequences are generated together: the engine has found out what its device holds."""
    return engine.stats.max_batch or settings.engine.max_batch


def _make_engine(settings: WorkerSettings, on_state: Callable[[str], None]) -> Answering:
    """Returns the engine that the settings choose: ours, vLLM, or a server."""
    if settings.server.url is None and settings.engine.kind == "vllm":
        return VllmEngine(settings.engine, on_state=on_state)
    if settings.server.url is None:
        return Engine(settings.engine, on_state=on_state)
    model = settings.server.model or settings.engine.checkpoint
    config = settings.server.model_copy(update={"model": model})
    return ServerEngine(config, on_state=on_state)
