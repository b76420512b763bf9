"""Questions to an engine in this process, all at once or staggered, and what its passes see."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from support.models import MODELS, clip
from videoqa.contract import Generation
from videoqa_worker.engine import Engine, Generated, GenerationRequest
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.prompt import FrameInput

TOGETHER = {"batch_wait_s": 0.3, "length_ratio": 100.0, "max_batch": 8}
"""Requests submitted together become one batch of up to 8 sequences."""
REFERENCE = {**TOGETHER, "pixels": "reference"}
VARIED: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.5, "seed": 4}
Tokens = list[int]
Check = Callable[[torch.Tensor], None]


def ask(
    engine: Engine, media: list[FrameInput], question: str, **settings: Any
) -> GenerationRequest:
    """Builds a request; keywords of AnswerOptions go there, the others to Generation."""
    names = ("should_stop", "own_batch", "on_progress", "on_text", "form")
    own = {k: settings.pop(k) for k in names if k in settings}
    generation = Generation(**{"max_new_tokens": 24, **settings})
    inputs = engine.prompter.build(media, question)
    return GenerationRequest(inputs, generation=generation, **own)


def answers(engine: Engine, requests: list[GenerationRequest]) -> list[Generated]:
    return [future.result(60) for future in submitted(engine, requests)]


def submitted(engine: Engine, requests: list[GenerationRequest]) -> list[Future[Generated]]:
    """Submits all requests before the engine takes the first."""
    with engine._queue._changed:
        return [engine.submit(request) for request in requests]


def single(engine: Engine, request: GenerationRequest) -> Generated:
    """Returns the answer to a request that runs alone."""
    return answers(engine, [replace(request, own_batch=True)])[0]


def given(kwargs: dict[str, Any]) -> torch.Tensor:
    """Returns the input of a forward pass: int64[batch, tokens], or embeddings [batch, tokens, d]."""
    ids = kwargs.get("input_ids")
    found: torch.Tensor = kwargs["inputs_embeds"] if ids is None else ids
    return found


@contextmanager
def batch_sizes(engine: Engine) -> Iterator[list[int]]:
    """Collects the batch size of each forward pass."""
    seen: list[int] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        runner = engine._runner
        decodes = isinstance(runner, ContinuousRunner) and runner.forward.cache.is_decoding
        seen.append(len(runner._table.decoding) if decodes else given(kwargs).shape[0])

    hook = engine._loaded.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def mixed(engine: Engine, count: int, **settings: Any) -> list[GenerationRequest]:
    """Requests of many lengths: 1 to 12 frames, one or two videos, short and long questions."""
    frames = [1, 12, 4, 7, 2, 9, 5, 3]
    return [
        ask(
            engine,
            [clip(n, frames[n])] if n % 2 else [clip(n, frames[n]), clip(n + 50, frames[-n])],
            "What is it " * (n + 1) + "?",
            **settings,
        )
        for n in range(count)
    ]


@lru_cache
def reference_model(family: str, folder: Path) -> Any:
    return MODELS[family].from_pretrained(folder, dtype=torch.float32)


def generated(model: Any, inputs: Any, max_new_tokens: int) -> Tokens:
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@contextmanager
def before_each_forward(engine: Engine, check: Check) -> Iterator[None]:
    """The real model, and `check` of what it is given before each of its steps."""

    def hook(_: Any, args: Any, kwargs: Any) -> None:
        check(given(kwargs))

    handle = engine._loaded.model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def small_device(rows: int) -> Check:
    def check(input_ids: torch.Tensor) -> None:
        if input_ids.shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return check


def questions(engine: Engine, count: int, media: Any = None, **settings: Any) -> list[Any]:
    """Returns the requests of one job, all different."""
    shown = media or [clip(1, 6)]
    return [ask(engine, shown, f"What is {'very ' * n}red?", **settings) for n in range(count)]


@lru_cache
def _load(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


class Reference:
    """Plain `generate` of transformers on what the engine is given: greedy, with all that the checkpoint states."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = _load(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @contextmanager
    def stating(self, settings: dict[str, Any]) -> Iterator[None]:
        """The model, as if its checkpoint stated these settings."""
        before = self._model.generation_config
        self._model.generation_config = GenerationConfig.from_dict(settings)
        try:
            yield
        finally:
            self._model.generation_config = before

    def tokens(self, request: GenerationRequest, *processors: LogitsProcessor) -> tuple[int, ...]:
        inputs = request.inputs
        cpu, dtype = torch.device("cpu"), torch.float32
        told: dict[str, Any] = {"input_ids": inputs.input_ids, **inputs.images}
        for name, kind in (("pixel_values", "image"), ("pixel_values_videos", "video")):
            if kind == "video" and inputs.videos:
                told[name] = torch.cat(inputs.videos)
            if name in told and kind in inputs.normalisations:
                told[name] = inputs.normalisations[kind](told[name], cpu, dtype)
        if self._model.config.model_type == "video_llava" and "pixel_values" in told:
            told["pixel_values_images"] = told.pop("pixel_values")
        out = self._model.generate(
            **told,
            attention_mask=inputs.attention_mask,
            do_sample=False,
            max_new_tokens=request.generation.max_new_tokens,
            tokenizer=self.tokenizer,
            logits_processor=LogitsProcessorList(processors),
        )
        return tuple(out[0, inputs.length :].tolist())


def varied(engine: Engine, count: int, seed: int) -> list[GenerationRequest]:
    """1 to 32 frames, of one of five videos, so that some are equal; 1 to 40 tokens."""
    draw = random.Random(seed)
    return [
        ask(
            engine,
            [clip(draw.randrange(5), draw.choice([1, 2, 4, 8, 32]))],
            "What is it " * draw.randint(1, 9) + "?",
            max_new_tokens=draw.choice([1, 2, 7, 24, 40]),
        )
        for _ in range(count)
    ]


def is_left(tokens: int | None, whole: Generated) -> bool:
    """Returns True if a cancel after so many tokens ends the answer; after the last but one it is too late."""
    return tokens is not None and (tokens == 0 or tokens + 1 < whole.output_tokens)


def canceled_after(request: GenerationRequest, tokens: int | None) -> GenerationRequest:
    if tokens is None:
        return request
    seen = [0]
    return replace(
        request,
        should_stop=lambda: seen[0] >= tokens,
        on_progress=lambda count: seen.__setitem__(0, count),
    )


def staggered(
    engine: Engine, requests: list[GenerationRequest], steps: list[int]
) -> list[Future[Generated]]:
    """Submits each request so many steps of the engine after the first; between steps, not in one."""
    order = sorted(range(len(requests)), key=lambda n: steps[n])
    futures: dict[int, Future[Generated]] = {}
    queue, taken = engine._queue, [0]
    plain = queue.take

    def take(*args: Any, **kwargs: Any) -> Any:
        while order and (steps[order[0]] <= taken[0] or not futures_running()):
            number = order.pop(0)
            futures[number] = engine.submit(requests[number])
        taken[0] += 1
        return plain(*args, **kwargs)

    def futures_running() -> bool:
        return any(not future.done() for future in list(futures.values()))

    queue.take = take  # type: ignore[method-assign]
    try:
        first = order.pop(0)
        futures[first] = engine.submit(requests[first])
        while len(futures) < len(requests):
            for future in [*futures.values()]:
                future.exception(60)
            if order and not futures_running():
                number = order.pop(0)
                futures[number] = engine.submit(requests[number])
    finally:
        del queue.take  # type: ignore[method-assign]
    return [futures[n] for n in range(len(requests))]
