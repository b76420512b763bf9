"""`VllmEngine`: vLLM's asynchronous engine behind the interface of ours.

vLLM's scheduler and model run in processes of their own; its front end lives in this one, on an event loop of its own
thread. A job's thread builds the prompt and waits for a future; the loop reads tokens, finds stop strings, streams
text and cancels, by the same `Sequence` as our own engine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as MediaSequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from videoqa.contract import Generation, Warn
from videoqa.errors import (
    AnswerNotServed,
    ConfigurationError,
    EngineStopped,
    ModelError,
    PromptTooLong,
)
from videoqa.telemetry.log_setup import adopt_libraries
from videoqa_worker import log_events
from videoqa_worker.engine.failures import make_nan_error
from videoqa_worker.engine.generation import (
    AnswerOptions,
    Generated,
    GenerationRequest,
    MediaQuestion,
    PendingRequest,
)
from videoqa_worker.engine.model.loading import open_checkpoint
from videoqa_worker.engine.sequence.sequence import Sequence
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.vllm.arguments import build_arguments, check_device, check_settings
from videoqa_worker.engine.vllm.counting import StepCounter
from videoqa_worker.engine.vllm.environment import (
    FailureReport,
    prepare_import,
    starting_processes,
)
from videoqa_worker.engine.vllm.failures import explain_start, make_stopped
from videoqa_worker.engine.vllm.gate import Gate
from videoqa_worker.engine.vllm.prompt import build_prompt
from videoqa_worker.engine.vllm.sampling import build_sampling, check_checkpoint
from videoqa_worker.prompt import (
    FrameInput,
    ModelInputs,
    PreparedMedia,
    Prompter,
    compute_form,
)
from videoqa_worker.settings import EngineConfig
from videoqa_worker.vllm_process import register_models

__all__ = ["VllmEngine"]

log = logging.getLogger(__name__)

_POLL_EVERY_S = 0.1
"""Interval at which questions that wait, or whose prompt is computed, are asked whether they are still wanted."""
_UNBUILT = ModelInputs(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0), {}, (), 0)
"""Stands for the inputs that vLLM's own processor makes."""


class VllmEngine:
    """Answers by vLLM. A context manager: entering starts it, leaving closes it."""

    def __init__(
        self, config: EngineConfig, *, on_state: Callable[[str], None] = lambda state: None
    ) -> None:
        """
        Raises:
            ConfigurationError: a setting is one that vLLM does not follow.
        """
        check_settings(config)
        self._config = config
        self._on_state = on_state
        self._counter = StepCounter(config.max_batch)
        self._report = FailureReport()
        self._gate = Gate()
        self._running: dict[asyncio.Task[Any], Sequence] = {}
        self._closing = threading.Event()
        self._entry = threading.Lock()
        """A question that is admitted before `close` is ended by it."""
        self._requests = 0
        self._started: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="videoqa-vllm", daemon=True)

    def start(self) -> None:
        """Starts vLLM and asks it a first question.

        Raises:
            ConfigurationError: it is not installed, cannot load the model, or fails on the question.
        """
        if self._thread.ident is None:
            self._thread.start()
        self._started.result()
        self._on_state("warming up")
        self._warm_up()
        self._on_state("ready")

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._load()
        except BaseException as error:  # noqa: BLE001 - `start` waits for it
            self._started.set_exception(
                explain_start(error, self._report.read(), self._config.model)
            )
            return
        self._started.set_result(None)
        self._loop.run_forever()

    def _load(self) -> None:
        config = self._config
        vllm = _import_vllm()
        device_type = vllm.platforms.current_platform.device_type
        check_device(config, device_type)
        opened, self._revision = open_checkpoint(config, self._on_state)
        check_checkpoint(opened.generation, config.model)
        arguments = build_arguments(
            config, device_type=device_type, model_config=opened.model_config, commit=opened.commit
        )
        self._on_state("starting vLLM")
        register_models()
        with starting_processes(config, self._report):
            self._engine = vllm.v1.engine.async_llm.AsyncLLM.from_engine_args(
                vllm.AsyncEngineArgs(**arguments), stat_loggers=[self._counter.make]
            )
        self._vllm, self._device = vllm, device_type
        self._generation, self._tokenizer = opened.generation, opened.processor.tokenizer
        self._prompter = Prompter(
            opened.processor,
            opened.model_config,
            chat_template=config.chat_template,
            max_context=self._engine.model_config.max_model_len,
        )
        for warning in self._prompter.warnings:
            log_events.PROMPT_WARNING.log(log, name=config.model, reason=warning.message)

    def _warm_up(self) -> None:
        black = np.zeros((32, 32, 3), np.uint8)
        generation = Generation(max_new_tokens=2)
        question = MediaQuestion(
            [FrameInput("video", (black,))], "What is this?", generation=generation
        )
        try:
            self.ask(question).result()
        except Exception as error:
            raise ConfigurationError(
                f"vLLM loaded {self._config.model}, but fails on a first question: {error}; "
                "set VIDEOQA_ENGINE=transformers if vLLM does not have this model",
                param="model",
            ) from error

    def close(self) -> None:
        """Ends running and waiting questions with EngineStopped, then vLLM's processes."""
        with self._entry:
            is_first = not self._closing.is_set()
            self._closing.set()
        if not is_first:
            return
        if self._thread.ident is not None:
            if self._started.exception() is None:  # waits for a start that is under way
                asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._report.remove()

    async def _end_all(self) -> None:
        running = [*self._running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # They ignore the signal that vLLM would let them 5 s for, and hold nothing that has to be closed.
        self._engine.shutdown(timeout=0)

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        """Builds the prompt on the caller's thread, and submits it.

        Raises:
            UnsupportedInput, MarkMismatch, PromptTooLong: the prompt cannot be built.
            AnswerNotServed: the answer has to have a form.
        """
        if question.form is not None:
            raise AnswerNotServed(
                f"got answer={question.form.kind!r}, expected free text: VIDEOQA_ENGINE=vllm holds no answers to a "
                "form; ask a worker with VIDEOQA_ENGINE=transformers"
            )
        limit = question.generation.max_new_tokens
        media = PreparedMedia.of(question.media)
        prompt = build_prompt(
            self._prompter, media, question.text, system=question.system, max_new_tokens=limit
        )
        options = {option.name: getattr(question, option.name) for option in fields(AnswerOptions)}
        pending = PendingRequest(GenerationRequest(_UNBUILT, **options))
        with self._entry:
            if not self._closing.is_set():
                return asyncio.run_coroutine_threadsafe(self._answer(pending, prompt), self._loop)
        pending.future.set_exception(make_stopped(had_begun=False))
        return pending.future

    async def _answer(self, pending: PendingRequest, prompt: Mapping[str, Any]) -> Generated:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine on a loop has a task
        sequence = Sequence(pending, self._tokenizer, self._generation)
        if not self._running:
            self._counter.last_step_at = time.monotonic()
            self._loop.call_later(_POLL_EVERY_S, self._poll)
        self._running[task] = sequence
        had_begun = False
        try:
            async with self._gate.enter(alone=pending.own_batch):
                had_begun = True
                return await self._generate(sequence, prompt)
        except asyncio.CancelledError:
            raise sequence.error or make_stopped(had_begun=had_begun) from None
        finally:
            del self._running[task]

    async def _generate(self, sequence: Sequence, prompt: Mapping[str, Any]) -> Generated:
        length = 0
        try:
            rendered = await self._render(prompt)
            length = len(rendered["prompt_token_ids"])
            self._check_length(length, sequence.generation.max_new_tokens)
            async with aclosing(self._submit(sequence, rendered)) as outputs:
                async for output in outputs:
                    self._take(sequence, output)
                    if sequence.is_finished:  # the rest is called off, within a step
                        break
        except self._vllm.v1.engine.exceptions.EngineDeadError:
            raise make_stopped(had_begun=True, reported=self._report.read()) from None
        except self._vllm.v1.engine.exceptions.EngineGenerateError as error:
            raise ModelError(f"vLLM failed on the question: {error.__cause__ or error}") from error
        except (ValueError, self._vllm.exceptions.VLLMClientError) as error:
            if getattr(error, "parameter", None) == "input_tokens":
                raise PromptTooLong(f"{error}; sample fewer frames") from error
            if "encoder cache" in str(error):
                raise PromptTooLong(
                    f"vLLM refuses the question: {error}; sample fewer frames, or raise VIDEOQA_PREFILL_CHUNK_TOKENS"
                ) from error
            raise ModelError(f"vLLM refuses the question: {error}") from error
        if sequence.error is not None:
            raise sequence.error
        if not sequence.is_finished:
            raise make_stopped(had_begun=True, reported=self._report.read())
        return replace(sequence.build_answer(), input_tokens=length)

    async def _render(self, prompt: Mapping[str, Any]) -> Any:
        """Has vLLM's processor prepare the media, on a thread of vLLM's."""
        parse = self._vllm.renderers.inputs.preprocess.parse_model_prompt
        parsed = parse(self._engine.model_config, prompt)
        (rendered,) = await self._engine.renderer.render_cmpl_async([parsed])
        return rendered

    def _submit(self, sequence: Sequence, rendered: Any) -> Any:
        pending = sequence.pending
        parameters = self._vllm.SamplingParams(
            **build_sampling(sequence.generation, self._generation, pending.seed),
            output_kind=self._vllm.sampling_params.RequestOutputKind.DELTA,
        )
        self._requests += 1
        return self._engine.generate(
            rendered,
            parameters,
            f"{self._requests}",
            priority=int(pending.rank_s * 1000) % (1 << 62),
        )

    def _take(self, sequence: Sequence, output: Any) -> None:
        """Adds new tokens; vLLM may end an answer before its limit where the context ends."""
        completion = output.outputs[0]
        for token in completion.token_ids:
            if not sequence.is_finished:
                sequence.append_token(token)
        if output.metrics is not None and getattr(output.metrics, "is_corrupted", False):
            sequence.error = make_nan_error()
        if not sequence.is_finished and completion.finish_reason in ("stop", "length"):
            sequence.finish_reason = completion.finish_reason

    def _check_length(self, length: int, max_new_tokens: int) -> None:
        most = self._prompter.max_context
        if length + max_new_tokens > most:
            raise PromptTooLong(
                f"got {length + max_new_tokens} tokens with max_new_tokens, expected at most {most}: sample fewer "
                "frames, or lower max_new_tokens"
            )

    def _poll(self) -> None:
        """Cancels questions that nobody wants any more; repeats while some are running."""
        for task, sequence in [*self._running.items()]:
            if not sequence.is_finished:
                sequence.poll_caller()
                if sequence.error is not None:
                    task.cancel()
        if self._running:
            self._loop.call_later(_POLL_EVERY_S, self._poll)

    @property
    def ready(self) -> bool:
        """True while it can answer; False for good once one of vLLM's processes has died."""
        started = self._started.done() and self._started.exception() is None
        return started and not self._closing.is_set() and not self._engine.errored

    @property
    def stats(self) -> Stats:
        """Counters now. `prefixes` counts tokens, and `features` prepared pictures and videos."""
        return self._counter.read(len(self._running))

    @property
    def revision(self) -> str:
        """The hub's commit, or a digest of the local files."""
        self._require_started()
        return self._revision

    @property
    def prompt_form(self) -> str:
        """Digest of the form of its prompts, which the installed packages decide too."""
        return compute_form(self.prompter)

    @property
    def prompter(self) -> Prompter:
        """Builds this model's prompts; safe to use from many threads."""
        self._require_started()
        return self._prompter

    def _require_started(self) -> None:
        if not self._started.done():
            raise EngineStopped("the engine was not started; call start() or use it in `with`")
        self._started.result()

    @property
    def device(self) -> str:
        """Type of the devices, as `cuda`."""
        self._require_started()
        return str(self._device)

    def measure_device(self) -> None:
        """Returns None: another process has the device."""
        return

    @property
    def stated_generation(self) -> Mapping[str, Any]:
        """The checkpoint's own generation settings that are in force."""
        self._require_started()
        return self._generation.describe()

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames and fps that the model's processor states, if it does."""
        return self.prompter.stated_sampling

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all of its answers, for their results."""
        return self.prompter.warnings

    def warn_of(self, media: MediaSequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns remarks on answers about these media."""
        return self.prompter.warn_of(media)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _import_vllm() -> Any:
    """Imports vLLM and the modules of it that are used here.

    Raises:
        ConfigurationError: it is not installed, or not for this torch or transformers.
    """
    prepare_import()
    try:
        import vllm
        import vllm.exceptions
        import vllm.platforms
        import vllm.renderers.inputs.preprocess
        import vllm.sampling_params
        import vllm.v1.engine.async_llm
        import vllm.v1.engine.exceptions
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("vllm")
        reason = "vLLM is not installed" if missing else f"vLLM cannot be imported: {error}"
        raise ConfigurationError(
            f"got VIDEOQA_ENGINE=vllm, but {reason}; pip install './worker[vllm]' in your clone, in an environment of "
            "its own, or set VIDEOQA_ENGINE=transformers",
            param="engine",
        ) from error
    adopt_libraries()
    return vllm
