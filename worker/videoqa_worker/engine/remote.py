"""An engine whose model is elsewhere: any server with OpenAI's chat completions.

vLLM, SGLang, `transformers serve` and others. Each question is one streamed request, so text
comes as it is written, and a request that is broken off frees the server. One thread runs them
all. The client is the `openai` package: it knows the protocol, retries and streams.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from videoqa.contract import FinishReason, Generation
from videoqa.errors import (
    ConfigurationError,
    EngineStopped,
    ModelServerError,
    ModelServerUnavailable,
)
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.request import Generated, canceled, never
from videoqa_worker.engine.sequence.detokenizer import Growing
from videoqa_worker.engine.stats import Stats
from videoqa_worker.prompt import Media, Viewed, chat_content
from videoqa_worker.settings import ServerConfig

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["ServerEngine"]

T = TypeVar("T")

_LOOK_EVERY_S = 0.1
"""How often a running request is asked whether anybody still wants it."""
_TRY_EVERY_S = 1.0
_CONNECT_S = 5.0
_LATER = (408, 409, 429)
"""Time-out, conflict, too many requests: a later try may succeed."""

_GIVEN_UP = ("abort", "error")
"""What vLLM and SGLang call the end of an answer that they broke off."""


class ServerEngine:
    """Answers by a server. A context manager: entering starts it, leaving closes it."""

    def __init__(
        self, config: ServerConfig, *, on_state: Callable[[str], None] = lambda state: None
    ) -> None:
        self._config = config
        self._on_state = on_state
        self._client: AsyncOpenAI | None = None
        self._closing = threading.Event()
        self._entry = threading.Lock()
        """Whoever is let in before the closing is ended by it."""
        self._running: dict[asyncio.Task[Any], asyncio.Task[Any] | None] = {}
        """Each request, and who awaits it."""
        self._turns = asyncio.Semaphore(config.max_requests)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="videoqa-server", daemon=True
        )

    def start(self) -> None:
        """Waits for the server, and asks it a first question.

        Raises:
            ConfigurationError: no server came up, or it refuses the question.
        """
        self._client = _client(self._config)
        self._thread.start()
        self._on_state("waiting for the model's server")
        until_s = time.monotonic() + self._config.start_s
        while True:
            try:
                self._first_question()
                break
            except ModelServerUnavailable as error:
                if time.monotonic() > until_s:
                    raise self._unusable(error) from error
                self._closing.wait(_TRY_EVERY_S)
            except (ModelServerError, EngineStopped) as error:
                raise self._unusable(error) from error
        self._on_state("ready")

    def _first_question(self) -> None:
        black = np.zeros((32, 32, 3), np.uint8)
        self.ask([Media("image", (black,))], "What is this?", Generation(max_new_tokens=1)).result()

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"the model's server does not answer: {error}; check VIDEOQA_SERVER_URL and "
            "VIDEOQA_SERVER_MODEL",
            param="server_url",
        )

    def close(self) -> None:
        """Breaks off all requests, with EngineStopped."""
        with self._entry:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread.is_alive():
            self._on_loop(self._end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        awaiting = [task for task in self._running.values() if task is not None]
        for task in [*self._running]:
            task.cancel()
        await asyncio.gather(*awaiting, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def ask(
        self,
        media: Sequence[Media] | Viewed,
        question: str,
        generation: Generation,
        *,
        should_stop: Callable[[], bool] = never,
        alone: bool = False,
        patience_s: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ) -> Future[Generated]:
        """See `Answering.ask`. Who runs together is the server's matter: nothing of it is passed on.

        Raises:
            UnsupportedInput, MarkMismatch.
        """
        content = chat_content(Viewed.of(media), question, images=self._config.images)
        growing = Growing(generation.stop, on_text)
        with self._entry:
            if not self._closing.is_set():
                return self._on_loop(self._answer(content, generation, growing, should_stop))
        refused: Future[Generated] = Future()
        refused.set_exception(_stopped(had_begun=False))
        return refused

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _answer(
        self,
        content: list[dict[str, Any]],
        generation: Generation,
        growing: Growing,
        should_stop: Callable[[], bool],
    ) -> Generated:
        begun = asyncio.Event()
        task = asyncio.ensure_future(self._request(content, generation, growing, begun))
        self._running[task] = asyncio.current_task()
        try:
            if self._closing.is_set():  # after it is known, so that `_end` cannot miss it
                raise _stopped(had_begun=False)
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK_EVERY_S)
                if not task.done() and should_stop():
                    raise canceled()
            if task.cancelled():
                raise _stopped(had_begun=begun.is_set())
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            del self._running[task]  # only now: `_end` waits for all that run

    async def _request(
        self,
        content: list[dict[str, Any]],
        generation: Generation,
        growing: Growing,
        begun: asyncio.Event,
    ) -> Generated:
        assert self._client is not None  # noqa: S101 - set by `start`
        begun_s, first_s, tokens = time.monotonic(), 0.0, 0
        finish: FinishReason | None = None
        usage: Any = None
        create: Any = self._client.chat.completions.create
        async with self._turns:
            begun.set()
            stream = await _explained(
                create(
                    model=self._config.model,
                    messages=[{"role": "user", "content": content}],
                    stream=True,
                    stream_options={"include_usage": True},
                    **_settings(generation),
                ),
                within_s=self._config.silence_s,  # with all tries of the client
            )
            async with stream:
                while not growing.stopped:
                    chunk = await _explained(anext(stream, None))
                    if chunk is None:
                        break
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        if choice.delta.content:
                            tokens += 1
                            first_s = first_s or time.monotonic() - begun_s
                            growing.add(choice.delta.content)
                        finish = _reason(choice) or finish
        if growing.stopped:
            finish = "stop_string"
        if finish is None:
            raise ModelServerUnavailable("the model's server broke the answer off")
        growing.end()
        return Generated(
            text=growing.text.strip(),
            tokens=(),
            finish_reason=finish,
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else tokens,
            first_token_s=first_s,
        )

    @property
    def ready(self) -> bool:
        return self._client is not None and not self._closing.is_set()

    @property
    def stats(self) -> Stats:
        """Its steps are the server's."""
        return Stats(running=0, beat_s=time.monotonic())

    @property
    def revision(self) -> str | None:
        """The protocol does not say."""
        return None

    @property
    def device(self) -> str:
        return "server"

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        return None, None

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


def _stopped(*, had_begun: bool) -> EngineStopped:
    error = EngineStopped(STOPPED)
    error.had_begun = had_begun
    return error


def _client(config: ServerConfig) -> AsyncOpenAI:
    try:
        from openai import AsyncOpenAI, Timeout
    except ImportError as error:
        raise ConfigurationError(
            "got server_url without the openai package; pip install 'videoqa-worker[server]'",
            param="server_url",
        ) from error
    return AsyncOpenAI(
        base_url=config.url,
        api_key=config.api_key.get_secret_value() if config.api_key else "none",
        timeout=Timeout(config.silence_s, connect=_CONNECT_S),
        max_retries=2,
    )


def _settings(generation: Generation) -> dict[str, Any]:
    """Without stop strings: we hang up at one, and some servers fail on them."""
    settings: dict[str, Any] = {
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
    }
    if generation.temperature > 0:
        settings["top_p"] = generation.top_p
    if generation.seed is not None:
        settings["seed"] = generation.seed
    return settings


def _reason(choice: Any) -> FinishReason | None:
    if choice.finish_reason is None:
        return None
    if choice.finish_reason in _GIVEN_UP:
        raise ModelServerUnavailable(
            f"the model's server gave the answer up: finish_reason={choice.finish_reason!r}"
        )
    return "length" if choice.finish_reason == "length" else "stop"


async def _explained(call: Awaitable[T], within_s: float | None = None) -> T:
    """Foreign errors as ours."""
    import openai

    try:
        async with asyncio.timeout(within_s):
            return await call
    except (openai.APIError, TimeoutError) as error:
        status = error.status_code if isinstance(error, openai.APIStatusError) else 500
        if 400 <= status < 500 and status not in _LATER:
            raise ModelServerError(
                f"the model's server refuses the question: {_first_line(error)}; ask for fewer "
                "frames or a shorter answer if it is too long, else check the server's settings"
            ) from error
        raise ModelServerUnavailable(
            f"the model's server does not answer now: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
