"""An engine whose model runs on a server with OpenAI's chat completions.

vLLM, SGLang, `transformers serve` and others. Each question is one streamed request, so text
arrives as it is generated, and an aborted request frees the server. One thread runs them
all. The client is the `openai` package: it knows the protocol, retries and streams.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np

from videoqa.contract import FinishReason, Generation, Warn
from videoqa.errors import (
    ConfigurationError,
    EngineStopped,
    FrameLimitUnmet,
    ModelServerError,
    ModelServerUnavailable,
)
from videoqa.redaction import redact_text
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.generation import Generated, MediaQuestion, make_canceled
from videoqa_worker.engine.sequence.detokenizer import StopStringBuffer
from videoqa_worker.engine.server_videos import VideoTrial
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.structured.server_fields import list_server_fields
from videoqa_worker.prompt import (
    ChatForm,
    FrameInput,
    PreparedMedia,
    build_chat_content,
    build_system_messages,
    describe_videos,
)
from videoqa_worker.settings import ServerConfig

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["ServerEngine"]

T = TypeVar("T")

_POLL_EVERY_S = 0.1
"""Interval at which `should_stop` of a running request is called."""
_MAX_ANSWER = 1_000_000
"""Characters of an answer: 4,096 tokens have some 20,000."""
_RETRY_EVERY_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
_RETRYABLE = (408, 409, 429)
"""Time-out, conflict, too many requests: a later attempt may succeed."""

_ABORTED = ("abort", "error")
"""Finish reasons of vLLM and SGLang for an answer that they aborted."""


class _Message(NamedTuple):
    """Question and media in the fields of the protocol."""

    content: list[dict[str, Any]]
    times: dict[str, Any] | None
    """Times of the frames of its videos; None: it has none."""


class ServerEngine:
    """Answers by a model server. A context manager: entering starts it, leaving closes it."""

    def __init__(
        self, config: ServerConfig, *, on_state: Callable[[str], None] = lambda state: None
    ) -> None:
        self._config = config
        self._on_state = on_state
        self._client: AsyncOpenAI | None = None
        self._closing = threading.Event()
        self._entry = threading.Lock()
        """A request admitted before `close` is ended by it."""
        self._running: dict[asyncio.Task[Any], asyncio.Task[Any] | None] = {}
        """Each request, and the task that awaits it."""
        self._videos = VideoTrial()
        self._output_tokens = 0
        self._turns = asyncio.Semaphore(config.max_requests)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="videoqa-server", daemon=True
        )

    def start(self) -> None:
        """Waits for the server, sends it a first question, and finds out whether it takes videos.

        Raises:
            ConfigurationError: the server stayed unreachable, refuses the question, or takes no videos although the
                settings say so.
        """
        self._client = _make_client(self._config)
        self._thread.start()
        self._on_state("waiting for the model's server")
        until_s = time.monotonic() + self._config.start_s
        while True:
            try:
                self._ask_first()
                break
            except ModelServerUnavailable as error:
                if time.monotonic() > until_s:
                    raise self._make_unusable(error) from error
                self._closing.wait(_RETRY_EVERY_S)
            except (ModelServerError, EngineStopped) as error:
                raise self._make_unusable(error) from error
        if self._config.videos != "images":
            self._videos.run(self._ask_about_video)
        if self._config.videos == "video_url" and not self._videos.takes_videos:
            raise ConfigurationError(
                "got VIDEOQA_SERVER_VIDEOS=video_url, but the model's server takes no frames as a video: "
                f"{self._videos.obstacle}; leave it out to send them as images",
                param="server_videos",
            )
        self._on_state("ready")

    def _ask_first(self) -> None:
        black = np.zeros((32, 32, 3), np.uint8)
        media, generation = [FrameInput("image", (black,))], Generation(max_new_tokens=1)
        self.ask(MediaQuestion(media, "What is this?", generation=generation)).result()

    def _ask_about_video(self, video: FrameInput, times: dict[str, Any]) -> None:
        generation = Generation(max_new_tokens=1)
        question = MediaQuestion([video], "What is this?", generation=generation)
        content = build_chat_content(
            PreparedMedia([video]), question.text, ChatForm(self._config.images, as_videos=True)
        )
        self._send(question, _Message(content, times)).result()

    def _make_unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"the model's server does not answer: {error}; check VIDEOQA_SERVER_URL and "
            "VIDEOQA_SERVER_MODEL",
            param="server_url",
        )

    def close(self) -> None:
        """Aborts all requests with EngineStopped."""
        with self._entry:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread.is_alive():
            self._run_on_loop(self._abort_all()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _abort_all(self) -> None:
        awaiting = [task for task in self._running.values() if task is not None]
        for task in [*self._running]:
            task.cancel()
        await asyncio.gather(*awaiting, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        """Sends a question. Batching is left to the server, so only generation and callbacks count.

        Raises:
            UnsupportedInput, MarkMismatch.
            FrameLimitUnmet: the media have limits, which the server's protocol has no field for.
        """
        media = PreparedMedia.of(question.media)
        if any(item.limits for item in media.media):
            raise FrameLimitUnmet(
                "got max_pixels or max_tokens_per_frame, but the model runs on a server, whose protocol has no such "
                "limit: leave it out, or set it where the server starts"
            )
        times = describe_videos(media.media) if self._videos.takes_videos else None
        form = ChatForm(self._config.images, as_videos=times is not None)
        return self._send(question, _Message(build_chat_content(media, question.text, form), times))

    def _send(self, question: MediaQuestion, message: _Message) -> Future[Generated]:
        stops = question.generation.stop if question.form is None else ()
        buffer = StopStringBuffer(stops, question.on_text)
        with self._entry:
            if not self._closing.is_set():
                return self._run_on_loop(self._answer(message, question, buffer))
        refused: Future[Generated] = Future()
        refused.set_exception(_make_stopped(had_begun=False))
        return refused

    def _run_on_loop(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _answer(
        self, message: _Message, question: MediaQuestion, buffer: StopStringBuffer
    ) -> Generated:
        begun = asyncio.Event()
        task = asyncio.ensure_future(self._request(message, question, buffer, begun))
        self._running[task] = asyncio.current_task()
        try:
            if (
                self._closing.is_set()
            ):  # after it is registered, so that `_abort_all` cannot miss it
                raise _make_stopped(had_begun=False)
            while not task.done():
                await asyncio.wait({task}, timeout=_POLL_EVERY_S)
                if not task.done() and question.should_stop():
                    raise make_canceled()
            if task.cancelled():
                raise _make_stopped(had_begun=begun.is_set())
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            del self._running[task]  # only now: `_abort_all` waits for all registered ones

    async def _request(
        self,
        message: _Message,
        question: MediaQuestion,
        buffer: StopStringBuffer,
        begun: asyncio.Event,
    ) -> Generated:
        assert self._client is not None  # noqa: S101 - set by `start`
        begun_s, first_s, tokens = time.monotonic(), 0.0, 0
        finish: FinishReason | None = None
        input_tokens, output_tokens, length = 0, 0, 0
        create: Any = self._client.chat.completions.create
        async with self._turns:
            begun.set()
            stream = await _translate_errors(
                create(
                    model=self._config.model,
                    messages=[
                        *build_system_messages(question.system),
                        {"role": "user", "content": message.content},
                    ],
                    stream=True,
                    stream_options={"include_usage": True},
                    **_make_settings(question, message.times),
                ),
                within_s=self._config.silence_s,  # with all retries of the client
            )
            async with stream:
                while not buffer.stopped:
                    chunk = await _translate_errors(anext(stream, None))
                    if chunk is None:
                        break
                    piece = _read_chunk(chunk)
                    input_tokens = piece.input_tokens or input_tokens
                    output_tokens = piece.output_tokens or output_tokens
                    finish = piece.finish or finish
                    if piece.text:
                        tokens, length = tokens + 1, length + len(piece.text)
                        first_s = first_s or time.monotonic() - begun_s
                        buffer.add(piece.text)
                    if length > _MAX_ANSWER:
                        raise ModelServerError(
                            f"the model's server wrote more than {_MAX_ANSWER} characters for "
                            f"max_new_tokens={question.generation.max_new_tokens}; check the server's settings"
                        )
        if buffer.stopped:
            finish = "stop_string"
        if finish is None:
            raise ModelServerUnavailable(
                "the model's server ended the stream before the answer was complete"
            )
        buffer.flush()
        self._output_tokens += output_tokens or tokens
        return Generated(
            text=buffer.text.strip(),
            tokens=(),
            finish_reason=finish,
            input_tokens=input_tokens,
            output_tokens=output_tokens or tokens,
            first_token_s=first_s,
            seconds=time.monotonic() - begun_s,
        )

    @property
    def ready(self) -> bool:
        """True while it can answer."""
        return self._client is not None and not self._closing.is_set()

    @property
    def stats(self) -> Stats:
        """Counters; the steps are the server's and not known."""
        return Stats(
            running=0,
            output_tokens=self._output_tokens,
            last_step_at=time.monotonic(),
        )

    @property
    def revision(self) -> str | None:
        """None: the protocol does not state it."""
        return None

    @property
    def prompt_form(self) -> str | None:
        """The form of videos, if they are sent as such; the server writes the rest of the prompt."""
        return "video_url" if self._videos.takes_videos else None

    @property
    def device(self) -> str:
        """Always `server`."""
        return "server"

    def measure_device(self) -> None:
        """Returns None: the server has the device."""
        return

    @property
    def stated_generation(self) -> Mapping[str, Any]:
        """Empty: the server's checkpoint is not known."""
        return {}

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns remarks on answers about these media."""
        return self._videos.warn_of(media)

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """None: the server's processor is not known."""
        return None, None

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """None: the server's chat template is not known."""
        return ()

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


def _make_stopped(*, had_begun: bool) -> EngineStopped:
    error = EngineStopped(STOPPED)
    error.had_begun = had_begun
    return error


def _make_client(config: ServerConfig) -> AsyncOpenAI:
    try:
        from openai import AsyncOpenAI, Timeout
    except ImportError as error:
        raise ConfigurationError(
            "got server_url without the openai package; pip install './worker[server]' in your clone",
            param="server_url",
        ) from error
    return AsyncOpenAI(
        base_url=config.url,
        api_key=config.api_key.get_secret_value() if config.api_key else "none",
        timeout=Timeout(config.silence_s, connect=_CONNECT_TIMEOUT_S),
        max_retries=2,
    )


def _make_settings(question: MediaQuestion, times: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the settings of a request, without stop strings: we hang up at one, and some servers fail on them."""
    generation = question.generation
    settings: dict[str, Any] = {
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
    }
    if generation.temperature > 0:
        settings["top_p"] = generation.top_p
    if generation.seed is not None:
        settings["seed"] = generation.seed
    for name in ("frequency_penalty", "presence_penalty"):
        if value := getattr(generation, name):
            settings[name] = value
    own, added = list_server_fields(question.form)
    settings |= own
    extra = _list_extra(generation) | added
    if times is not None:
        extra["media_io_kwargs"] = times
    if extra:
        settings["extra_body"] = extra
    return settings


def _list_extra(generation: Generation) -> dict[str, Any]:
    """Returns the settings that OpenAI's protocol lacks, by the names that vLLM and SGLang have for them."""
    extra: dict[str, Any] = {}
    if generation.temperature > 0 and generation.top_k:
        extra["top_k"] = generation.top_k
    if generation.temperature > 0 and generation.min_p:
        extra["min_p"] = generation.min_p
    if generation.repetition_penalty is not None:
        extra["repetition_penalty"] = generation.repetition_penalty
    return extra


class _Piece(NamedTuple):
    """The fields of use in one chunk of a server's answer."""

    text: str = ""
    finish: FinishReason | None = None
    input_tokens: int = 0
    output_tokens: int = 0


def _read_chunk(chunk: Any) -> _Piece:
    """Reads a chunk, of which the client has checked nothing.

    Raises:
        ModelServerUnavailable: it is not a chunk of a chat completion, or ends an aborted answer.
    """
    try:
        usage = chunk.usage
        counts = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        input_tokens, output_tokens = (max(0, int(count)) for count in counts)
        if not chunk.choices:
            return _Piece(input_tokens=input_tokens, output_tokens=output_tokens)
        choice = chunk.choices[0]
        text = str.encode(choice.delta.content or "", "utf-16", "surrogatepass")
        reason = choice.finish_reason
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise _make_foreign_error(error) from error
    if reason in _ABORTED:
        raise ModelServerUnavailable(
            f"the model's server aborted the answer: finish_reason={reason!r}"
        )
    finish: FinishReason = "length" if reason == "length" else "stop"
    # Half of a surrogate pair is no character, and Redis would refuse the text.
    return _Piece(
        text.decode("utf-16", "replace"),
        None if reason is None else finish,
        input_tokens,
        output_tokens,
    )


def _make_foreign_error(error: Exception) -> ModelServerUnavailable:
    return ModelServerUnavailable(
        f"the model's server sent something else than a chat completion ({type(error).__name__}); "
        "check VIDEOQA_SERVER_URL, and the server's log"
    )


async def _translate_errors(call: Awaitable[T], within_s: float | None = None) -> T:
    """Awaits a call of the client; raises its errors as ours."""
    import httpx
    import openai

    try:
        async with asyncio.timeout(within_s):
            return await call
    except (openai.APIError, TimeoutError) as error:
        status = error.status_code if isinstance(error, openai.APIStatusError) else 500
        if 400 <= status < 500 and status not in _RETRYABLE:
            raise ModelServerError(
                f"the model's server refuses the question: {_read_first_line(error)}; ask for fewer "
                "frames or a shorter answer if it is too long, else check the server's settings"
            ) from error
        raise ModelServerUnavailable(
            f"the model's server does not answer now: {_read_first_line(error)}"
        ) from error
    except httpx.HTTPError as error:  # while a stream is read, the client leaves them as they are
        raise ModelServerUnavailable(
            f"the model's server broke the answer off: {_read_first_line(error)}"
        ) from error
    except (ValueError, RecursionError) as error:  # of JSON that is none, or too deep
        raise _make_foreign_error(error) from error


def _read_first_line(error: Exception) -> str:
    """Returns the error's first line, without the API key, which some servers repeat."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0][:500]
    request = getattr(error, "request", None)
    key = request.headers.get("Authorization", "").removeprefix("Bearer ") if request else ""
    return redact_text(line.replace(key, "***") if key else line)
