"""VideoQA: a model that answers questions about videos in this process, from any thread.

The same parts and steps as in a worker answer here, without a queue: what a worker's job would get, `ask` returns.
Knows requests and settings; the model lives in a `RunningEngine`, which is made in the process where it is first used.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from videoqa import errors
from videoqa.contract import Failure, JobRequest, Question, RequestKeywords, Result
from videoqa.forks import reopen_in_children
from videoqa_worker.job.failure import make_failure, translate_error
from videoqa_worker.library.requests import OneInput, OneRequest, list_requests, make_request
from videoqa_worker.library.running import DirectJob, OnProgress, RunningEngine
from videoqa_worker.settings import WorkerSettings

__all__ = ["VideoQA"]

OnError = Literal["raise", "return"]
_Inputs = OneInput | Sequence[OneInput]
_OneQuestion = str | Question | Mapping[str, Any]
_Questions = _OneQuestion | Sequence[_OneQuestion]
_OWN_FILES = (Path("/"),)
"""The caller can read files anyway; a program that is given others' URLs sets `file_roots`."""


def _ignore_state(state: str) -> None:
    pass


class VideoQA:
    """A model in this process. Thread-safe, and a context manager.

    The model is loaded by `with`, by `start` or by the first question. A VideoQA pickles as its settings: the copy
    loads the model in the process where it is first used, and so does that of a forked child.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        settings: WorkerSettings | None = None,
        on_state: Callable[[str], None] = _ignore_state,
        **options: Any,
    ) -> None:
        """
        Arguments:
            model: hub id or folder of a checkpoint, or `demo` for the bundled one; None: the default model.
            settings: all settings, in place of model and options.
            on_state: called with what is going on while the model loads, such as `print`. It is not pickled.
            options: settings of a worker by their names in lower case, such as `device`, `max_batch` or `file_roots`
                (docs/reference/settings.md). Files of this machine are open unless `file_roots` says otherwise, and the
                environment is not read (`from_environment` does).

        Raises:
            ConfigurationError: a setting is wrong. TypeError: there is no such setting.
        """
        if settings is not None and (model is not None or options):
            raise TypeError("got settings with a model or options, expected one or the other")
        if settings is None:
            settings = _make_settings({}, model, options)
        self._settings = settings
        self._on_state = on_state
        self._running: RunningEngine | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        reopen_in_children(self)

    @classmethod
    def from_environment(
        cls,
        model: str | None = None,
        *,
        on_state: Callable[[str], None] = _ignore_state,
        **options: Any,
    ) -> Self:
        """Makes one with the worker's variables (VIDEOQA_*) too; model and options win.

        Raises:
            ConfigurationError: names the variable, what it held and what is expected.
        """
        return cls(settings=_make_settings(None, model, options), on_state=on_state)

    def __reduce__(self) -> tuple[Callable[[WorkerSettings], VideoQA], tuple[WorkerSettings]]:
        return _make_again, (self._settings,)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def model(self) -> str:
        """Name of the model, as results have it."""
        return self._settings.model

    @property
    def revision(self) -> str | None:
        """Commit of the hub or digest of the local files of the model, which is loaded for it."""
        return self._start().revision

    def start(self) -> None:
        """Loads the model and starts the decoding processes, unless that is done.

        Raises:
            ConfigurationError: the model cannot be loaded. ClientClosed: `close` was called.
        """
        self._start()

    def close(self) -> None:
        """Ends the engine and the decoding processes; requests that run raise WorkerStopping or EngineStopped."""
        with self._lock:
            self._is_closed = True
            running, self._running = self._running, None
        if running is not None:
            self._finalizer.detach()
            running.close()

    @overload
    def ask(
        self,
        inputs: _Inputs | None = ...,
        questions: _Questions | None = ...,
        /,
        *,
        on_error: Literal["raise"] = ...,
        on_progress: OnProgress | None = ...,
        **fields: Unpack[RequestKeywords],
    ) -> Result: ...

    @overload
    def ask(
        self,
        inputs: _Inputs | None = ...,
        questions: _Questions | None = ...,
        /,
        *,
        on_error: Literal["return"],
        on_progress: OnProgress | None = ...,
        **fields: Unpack[RequestKeywords],
    ) -> Result | Failure: ...

    def ask(
        self,
        inputs: _Inputs | None = None,
        questions: _Questions | None = None,
        /,
        *,
        on_error: OnError = "raise",
        on_progress: OnProgress | None = None,
        **fields: Unpack[RequestKeywords],
    ) -> Result | Failure:
        """Answers one or more questions about the same videos and images; other threads may ask meanwhile.

        Arguments:
            inputs: URLs (s3, http, https, file) and paths on this machine.
            on_error: return: an error becomes a `Failure`, with its code and message; a wrong setting raises in any
                case.
            on_progress: called with each step, on this thread; with `stream=True` also with text as it is written.
            fields: the other fields of a request (docs/reference/contract.md), but those that need a queue.

        Raises:
            RequestError: the request is wrong. JobError: as a job's failure. ConfigurationError: as `start`.
        """
        try:
            request = make_request(inputs, questions, fields, model=self.model)
        except errors.RequestError as error:
            return _raise_or_return(error, on_error)
        return self._answer(DirectJob(request), on_error, on_progress)

    @overload
    def ask_many(
        self,
        items: Iterable[OneRequest],
        questions: _Questions | None = ...,
        /,
        *,
        on_error: Literal["raise"] = ...,
        **fields: Unpack[RequestKeywords],
    ) -> Iterator[Result]: ...

    @overload
    def ask_many(
        self,
        items: Iterable[OneRequest],
        questions: _Questions | None = ...,
        /,
        *,
        on_error: Literal["return"],
        **fields: Unpack[RequestKeywords],
    ) -> Iterator[Result | Failure]: ...

    def ask_many(
        self,
        items: Iterable[OneRequest],
        questions: _Questions | None = None,
        /,
        *,
        on_error: OnError = "raise",
        **fields: Unpack[RequestKeywords],
    ) -> Iterator[Result | Failure]:
        """Answers many requests, several at a time, and yields a result for each in the order of the items.

        Of a generator no more is taken than what runs or waits to be yielded: twice the requests that run at a time.
        What still runs is stopped when the iterator is closed, or an error is raised.

        Arguments:
            items: videos (a URL, a path, or a list of several for one request), or whole requests, as dictionaries
                with `inputs` and `questions`.
            on_error: return: an item's error becomes its `Failure`, and the others go on.
            questions, fields: hold for all items that do not state their own.

        Raises:
            As `ask`; what the items' iterator raises passes through.
        """
        running = self._start()
        requests = list_requests(iter(items), questions, fields, model=self.model)
        waiting: deque[tuple[DirectJob | None, Future[Result | Failure]]] = deque()
        ended = threading.Event()
        with ThreadPoolExecutor(running.job_slots, thread_name_prefix="videoqa-ask") as threads:
            try:
                for request in requests:
                    waiting.append(self._begin(threads, request, on_error, ended))
                    if len(waiting) >= 2 * running.job_slots:
                        yield waiting.popleft()[1].result()
                while waiting:
                    yield waiting.popleft()[1].result()
            finally:
                ended.set()
                for job, future in waiting:
                    if not future.cancel() and job is not None:
                        running.stop(job)

    def _begin(
        self,
        threads: ThreadPoolExecutor,
        request: JobRequest | errors.RequestError,
        on_error: OnError,
        ended: threading.Event,
    ) -> tuple[DirectJob | None, Future[Result | Failure]]:
        if isinstance(request, errors.RequestError):
            return None, threads.submit(_raise_or_return, request, on_error)
        job = DirectJob(request)
        return job, threads.submit(self._answer, job, on_error, None, ended)

    def _answer(
        self,
        job: DirectJob,
        on_error: OnError,
        on_progress: OnProgress | None,
        ended: threading.Event | None = None,
    ) -> Result | Failure:
        running = self._start()
        try:
            return running.answer(job, on_progress, ended)
        except Exception as error:
            if on_error == "raise":
                raise
            return make_failure(translate_error(error), job.attempt)

    def _start(self) -> RunningEngine:
        with self._lock:
            if self._is_closed:
                raise errors.ClientClosed("this VideoQA is closed; make a new one")
            if self._running is None:
                self._running = RunningEngine(self._settings, self._on_state)
                # A program that never closes it leaves no download behind.
                self._finalizer = weakref.finalize(self, self._running.close)
            return self._running

    def _reopen(self) -> None:
        """Forgets the parent's engine, in a forked child: its threads are not here, and its processes not ours."""
        self._lock = threading.Lock()
        if self._running is not None:
            self._finalizer.detach()
            self._running = None


def _make_settings(
    environ: dict[str, str] | None, model: str | None, options: dict[str, Any]
) -> WorkerSettings:
    read = os.environ if environ is None else environ
    if "file_roots" not in options and not read.get("VIDEOQA_FILE_ROOTS"):
        options = {**options, "file_roots": _OWN_FILES}
    return WorkerSettings.from_environment(read, model=model, **options)


def _make_again(settings: WorkerSettings) -> VideoQA:
    return VideoQA(settings=settings)


def _raise_or_return(error: errors.RequestError, on_error: OnError) -> Failure:
    if on_error == "raise":
        raise error
    return make_failure(error, attempt=0)
