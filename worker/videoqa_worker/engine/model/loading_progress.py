"""Reports the progress of loading a model in words.

transformers and the hub's client show bars on a terminal. A worker has none, and a bar in its log
is noise: theirs are replaced by ones that report once a second, if loading takes that long.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils.tqdm import tqdm
from transformers.utils import logging

__all__ = ["loading_progress"]

REPORT_EVERY_S = 1.0


@contextmanager
def loading_progress(report: Callable[[str], None]) -> Iterator[type[Any]]:
    """Passes the progress of loading weights to `report` within the block.

    Yields a class for `tqdm_class` of `from_pretrained`, which reports downloads.
    """

    class Bar(tqdm):
        monitor_interval = 0  # no thread

        def __init__(self, *args: Any, **settings: Any) -> None:
            self._reported_s = time.monotonic()
            quiet = {"disable": False, "file": io.StringIO(), "mininterval": REPORT_EVERY_S / 2}
            super().__init__(*args, **(settings | quiet))  # type: ignore[no-untyped-call]

        def display(self, *_: Any, **__: Any) -> None:
            now_s = time.monotonic()
            if now_s - self._reported_s >= REPORT_EVERY_S and self.total:
                self._reported_s = now_s
                report(_describe(self.desc, self.n, self.total, in_bytes=self.unit == "B"))

    def make(_: Any, args: Any, settings: Any) -> Any:
        return Bar(*args, **settings)

    before = logging.set_tqdm_hook(make)
    try:
        yield Bar
    finally:
        logging.set_tqdm_hook(before)


def _describe(what: str, done: float, total: float, *, in_bytes: bool) -> str:
    what = what.strip().rstrip(":").rpartition("/")[2]
    if in_bytes:
        size, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
        return f"downloading {what}: {done / size:.1f} of {total / size:.1f} {unit}"
    return f"{what[:1].lower()}{what[1:]}: {done / total:.0%}"
