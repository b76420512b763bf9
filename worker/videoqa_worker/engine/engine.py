"""The resident model behind a queue: submit a request, get a future.

One thread loads the model, owns it and runs it; callers' threads only queue. `_serve` is the loop of
that thread: one step after the other, continuous batching in slots or, for models that do not fit into
slots, padded batches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from videoqa.contract import Generation, Warn
from videoqa.errors import AnswerNotServed, ConfigurationError, EngineStopped, PromptTooLong
from videoqa_worker import log_events
from videoqa_worker.engine.device.memory import DeviceMemory, MemoryPlan, measure_device
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.execution.padded import PaddedRunner
from videoqa_worker.engine.execution.sizing import size_engine
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.generation import (
    Generated,
    GenerationRequest,
    MediaQuestion,
    PendingRequest,
)
from videoqa_worker.engine.model.kv_shape import find_kv_shape
from videoqa_worker.engine.model.loading import LoadedModel, load
from videoqa_worker.engine.scheduling.coalescing import Coalescer, compute_key
from videoqa_worker.engine.scheduling.request_queue import RequestQueue
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.structured.matcher import GrammarCompiler
from videoqa_worker.machine import count_cores
from videoqa_worker.prompt import FrameInput, Prompter, compute_form
from videoqa_worker.settings import EngineConfig

__all__ = ["Engine"]

log = logging.getLogger(__name__)

Runner = ContinuousRunner | PaddedRunner
_NEXT_STEP = (
    "; its files may be of different models: download all of them again, or take another revision"
)


def _ignore_state(state: str) -> None:
    pass


def _count_logits(loaded: LoadedModel) -> int:
    """Returns the width of the model's logits, and no less than the tokens of its tokenizer."""
    return max(loaded.generation.vocabulary or 0, len(loaded.tokenizer))


class Engine:
    """A model that answers requests from any thread.

    A context manager: entering starts it, leaving closes it.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        on_state: Callable[[str], None] = _ignore_state,
        loader: Callable[[EngineConfig, Callable[[str], None]], LoadedModel] = load,
    ) -> None:
        """
        Arguments:
            on_state: called with the state of the start ("loading weights", "warming up", "ready").
            loader: loads the model; benchmarks pass one of their own.
        """
        self._loader = loader
        self._config = config
        self._on_state = on_state
        self._queue = RequestQueue(config)
        self._coalescer = Coalescer()
        self._runner: Runner | None = None
        self._grammars: GrammarCompiler | None = None
        self._closing = threading.Event()
        self._started: Future[LoadedModel] = Future()
        self._thread = threading.Thread(target=self._main, name="videoqa-engine", daemon=True)

    def start(self) -> None:
        """Loads and warms up the model; returns when it is ready.

        Raises:
            ConfigurationError: the model cannot be loaded, or fails on a first question.
        """
        if self._thread.ident is None:
            self._thread.start()
        self._started.result()

    def close(self) -> None:
        """Ends running and waiting requests with EngineStopped, then the thread."""
        self._closing.set()
        self._refuse(self._queue.close())
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def submit(self, request: GenerationRequest) -> Future[Generated]:
        """Queues a request, or subscribes it to an equal one that is not answered yet.

        The future holds the answer, or a GenerationError or JobCanceled.
        """
        try:
            self.prompter.check_length(request.inputs, request.generation.max_new_tokens)
            request = self._add_grammar(request)
        except (PromptTooLong, AnswerNotServed) as error:
            refused: Future[Generated] = Future()
            refused.set_exception(error)
            return refused
        key = compute_key(request)
        if key is None:
            return self._enqueue(request)
        future, coalesced = self._coalescer.join(request, key)
        if coalesced is not None:
            try:
                own = self._enqueue(coalesced.request)
            except Exception as error:  # noqa: BLE001 - equal requests may be waiting for it already
                own = Future()
                own.set_exception(error)
            own.add_done_callback(partial(self._coalescer.complete, key, coalesced))
        return future

    def _add_grammar(self, request: GenerationRequest) -> GenerationRequest:
        """Compiles the form of an answer on the caller's thread, so that the engine's never does."""
        if request.form is None or request.grammar is not None:
            return request
        assert self._grammars is not None  # noqa: S101 - set before the start ends
        return replace(request, grammar=self._grammars.make(request.form))

    def _enqueue(self, request: GenerationRequest) -> Future[Generated]:
        # On the caller's thread, so that the engine's does not wait for the copy.
        if self._device_type == "cuda":
            request = replace(request, inputs=request.inputs.pin())
        pending = PendingRequest(request)
        if self._runner is not None and self._runner.wants_digests:
            pending.media_digest = request.inputs.media_digest
        if not self._queue.put(pending):
            self._refuse([pending])
        return pending.future

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        """Builds the prompt on the caller's thread, and submits it.

        Raises:
            UnsupportedInput, MarkMismatch, PromptTooLong: the prompt cannot be built.
        """
        max_new_tokens = question.generation.max_new_tokens
        inputs = self.prompter.build(
            question.media, question.text, system=question.system, max_new_tokens=max_new_tokens
        )
        return self.submit(question.to_request(inputs))

    def clear_caches(self) -> None:
        """Empties the caches of features and prefixes, for a measurement; only while nothing runs."""
        if isinstance(self._runner, ContinuousRunner):
            self._runner.prefix_cache.clear()

    @property
    def stated_generation(self) -> Mapping[str, Any]:
        """The checkpoint's own generation settings that are in force."""
        return self._loaded.generation.describe()

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames and fps that the model's processor states, if it does."""
        return self.prompter.stated_sampling

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all of its answers, for their results."""
        return self.prompter.warnings

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns remarks on answers about these media."""
        return self.prompter.warn_of(media)

    @property
    def ready(self) -> bool:
        """True while it can answer; False for good once the device is broken."""
        loaded = self._started.done() and self._started.exception() is None
        return loaded and self._thread.is_alive() and not self._closing.is_set()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def stats(self) -> Stats:
        """Counters now; zeros before the start."""
        stats = self._runner.stats if self._runner is not None else Stats()
        return replace(stats, shared=self._coalescer.shared)

    @property
    def model_id(self) -> str:
        """Name or folder of the checkpoint."""
        return self._config.model

    @property
    def revision(self) -> str:
        """The hub's commit, or a digest of the local files."""
        return self._loaded.revision

    @property
    def prompt_form(self) -> str:
        """Digest of the form of its prompts, which the installed packages decide too."""
        return compute_form(self.prompter)

    @property
    def prompter(self) -> Prompter:
        """Builds this model's prompts; safe to use from many threads."""
        return self._loaded.prompter

    @property
    def _device_type(self) -> str:
        device: torch.device = self._loaded.model.device
        return device.type

    @property
    def device(self) -> str:
        """Name of the device, as `cuda:0`."""
        return str(self._loaded.model.device)

    def measure_device(self) -> DeviceMemory | None:
        """Returns the name and memory of the device; None: it is the CPU."""
        return measure_device(self._loaded.model.device)

    @property
    def dtype(self) -> str:
        """Name of the weights' dtype, as `bfloat16`."""
        return str(self._loaded.model.dtype).removeprefix("torch.")

    @property
    def _loaded(self) -> LoadedModel:
        if not self._started.done():
            raise EngineStopped("the engine was not started; call start() or use it in `with`")
        return self._started.result()

    def _main(self) -> None:
        try:
            with torch.inference_mode():
                self._serve(self._load())
        except BaseException as error:  # noqa: BLE001 - callers wait for it
            self._report(error)
        finally:
            self._closing.set()
            if self._runner is not None:
                self._runner.close()
            self._refuse(self._queue.close())

    def _serve(self, runner: Runner) -> None:
        while runner.step(self._queue):
            pass

    def _load(self) -> Runner:
        loaded = self._loader(self._config, self._on_state)
        for warning in loaded.prompter.warnings:
            log_events.PROMPT_WARNING.log(log, name=self._config.model, reason=warning.message)
        self._on_state("warming up")
        runner = self._choose_runner(loaded)
        self._on_state("ready")
        self._runner = runner
        self._grammars = GrammarCompiler(
            loaded.tokenizer, loaded.generation.ends, _count_logits(loaded)
        )
        self._grammars.read()  # now, since no sequence runs that would wait for it
        self._started.set_result(loaded)
        return runner

    def _choose_runner(self, loaded: LoadedModel) -> Runner:
        """Returns a runner in slots if the model allows for it, else one of padded batches."""
        slots = self._try_slots(loaded) if self._config.batching == "slots" else None
        if slots is not None:
            return slots
        config = self._config
        if config.batch_invariant:
            config = config.model_copy(update={"max_batch": 1})
        batches = PaddedRunner(loaded, config, self._closing.is_set)
        error = self._warm_up(batches, loaded.prompter)
        if error is not None:
            step = "" if "another revision" in str(error) else _NEXT_STEP
            raise ConfigurationError(
                f"{self._config.model} was loaded, but fails on a first question: {error}{step}",
                param="model",
            ) from error
        return batches

    def _try_slots(self, loaded: LoadedModel) -> ContinuousRunner | None:
        shape = find_kv_shape(loaded.model) if loaded.features_apart else None
        if shape is None:
            log_events.PADDED_BATCHES.log(log, name=self._config.model)
            return None
        plan = size_engine(loaded, shape, self._config)
        slots = ContinuousRunner(
            loaded, shape, plan.apply(self._config), self._closing.is_set, plan.most_pass_tokens
        )
        error = self._warm_up(slots, loaded.prompter)
        if error is None:
            self._log_sizes(plan)
            return slots
        log_events.SLOTS_FAILED.log(log, name=self._config.model, error=error)
        return None

    def _log_sizes(self, plan: MemoryPlan) -> None:
        log_events.ENGINE_SIZED.log(
            log,
            threads=torch.get_num_threads(),
            cores=count_cores(),
            sequences=plan.max_batch,
            tokens=plan.max_batch_tokens,
            reason=plan.reason,
        )

    def _warm_up(self, runner: Runner, prompter: Prompter) -> BaseException | None:
        """Answers one tiny question: kernels are chosen, and faults show now; returns the error, if any."""
        black = np.zeros((32, 32, 3), np.uint8)
        inputs = prompter.build([FrameInput("video", (black,))], "What is this?")
        pending = PendingRequest(GenerationRequest(inputs, generation=Generation(max_new_tokens=2)))
        runner.run([pending])
        return pending.future.exception()

    def _report(self, error: BaseException) -> None:
        """Passes an error that ended the thread to `start`, or to the log if it has returned."""
        if self._started.done():
            log_events.ENGINE_DIED.log(log, exc_info=error)
        elif isinstance(error, ConfigurationError):
            self._started.set_exception(error)
        else:
            failed = ConfigurationError(f"the engine cannot start: {error}", param="model")
            failed.__cause__ = error
            self._started.set_exception(failed)

    def _refuse(self, requests: list[PendingRequest]) -> None:
        for pending in requests:
            if pending.start():
                error = EngineStopped(STOPPED)
                error.had_begun = False
                pending.future.set_exception(error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
