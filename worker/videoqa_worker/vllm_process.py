"""Runs in the processes that vLLM starts for a worker's engine: it has them end with the worker, and never before it.

vLLM calls `guard` in each of its processes, by the entry point `vllm.general_plugins`. A process that no worker
started is left as it is.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from multiprocessing import active_children, connection, parent_process
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

__all__ = ["REPORT_VARIABLE", "guard", "register_models"]

REPORT_VARIABLE = "_VIDEOQA_VLLM_REPORT"
"""Names the file into which these processes write why they failed; set only while a worker starts them."""


def guard() -> None:
    """Has this process end with its parent, leaves signals to the worker, and reports failures to it."""
    parent, report = parent_process(), os.environ.get(REPORT_VARIABLE)
    if parent is None or report is None:
        return
    # A supervisor or a terminal may signal all processes of a worker, which lets its running jobs end first; it kills
    # these processes itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # At its end Python sends SIGTERM to processes that this one has started, and waits for them.
    Finalize(None, _kill_children, exitpriority=0)
    threading.Thread(target=_end_with, args=(parent,), name="videoqa-guard", daemon=True).start()
    logging.getLogger("vllm").addHandler(_Reporter(report))
    register_models()


def register_models() -> None:
    """Has vLLM take repaired models, each imported when a checkpoint needs it."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(
        "LlavaOnevisionForConditionalGeneration", "videoqa_worker.vllm_models:LlavaOnevision"
    )


def _kill_children() -> None:
    for child in active_children():
        child.kill()


def _end_with(parent: BaseProcess) -> None:
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


class _Reporter(logging.Handler):
    """Appends the exception of each logged error to a file, a line each."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Appends a line; a record without an exception is none of these."""
        if record.exc_info is None or record.exc_info[1] is None:
            return
        error = record.exc_info[1]
        line = " ".join(f"{type(error).__name__}: {error}".split())[:2000]
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self.handleError(record)
