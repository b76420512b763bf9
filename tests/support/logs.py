"""Log lines as a process of ours writes them, for the time of a block."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from videoqa.telemetry.log_setup import LogFormat, configure_logs

__all__ = ["configured_logs", "parse_lines"]


@contextmanager
def configured_logs(
    log_format: LogFormat = "json", *, level: str = "INFO", hide_text: bool = False
) -> Iterator[None]:
    """Configures the logs as a worker does, and puts all back that this changes."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in _OURS}
    root_level, hooks = root.level, (warnings.showwarning, sys.excepthook, threading.excepthook)
    try:
        configure_logs(level, log_format, hide_text=hide_text)
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        warnings.showwarning, sys.excepthook, threading.excepthook = hooks
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


_OURS = ("videoqa", "videoqa_worker", "celery.worker.consumer")


def parse_lines(text: str) -> list[dict[str, Any]]:
    """Parses JSON lines; each line must be an object."""
    return [json.loads(line) for line in text.splitlines()]
