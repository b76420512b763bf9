"""Sources of this machine's servers, opened as a worker opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import LocalCopy, Sources

__all__ = ["open_source"]


@contextmanager
def open_source(
    url: str,
    spool: Path,
    endpoint_url: str | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    resolve: Any = None,
    **settings: object,
) -> Iterator[LocalCopy]:
    """Opens a file of any size by ranges; private addresses are allowed unless the settings forbid them."""
    defaults = {"private_addresses": True, "download_below_bytes": 0, "range_gap_bytes": 4096}
    config = SourceConfig(spool_dir=spool, **{**defaults, **settings})  # type: ignore[arg-type]
    more = {"resolve": resolve} if resolve else {}
    with (
        Sources(config, s3_endpoint_url=endpoint_url, **more) as sources,
        sources.open(url, check=check) as copy,
    ):
        yield copy
