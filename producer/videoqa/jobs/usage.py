"""Counters of use: their numbers as the text that scripts add up, and rows made of them.

`count_use` of `lua/common.lua` writes them when a job ends. Does no I/O.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from videoqa.contract import Result, UsageBy, UsageRow

__all__ = ["UsageSums", "pack_use"]

_ENDS = ("succeeded", "failed", "canceled", "expired")
_USED = (
    "answers", "frames", "input_tokens", "output_tokens", "bytes_fetched", "video_s", "processing_s",
)  # fmt: skip
_NUMBERS = (*_ENDS, *_USED)
"""Numbers of a row, in the order in which they are stored; the scripts know the first four."""
_Numbers = list[float]
_Name = tuple[str | None, bool]


def pack_use(result: Result | None) -> str:
    """Returns the numbers of a result that are counted; none for None."""
    if result is None:
        return ""
    usage = result.usage
    video_s = sum(
        max(0.0, (source.duration_s if source.end is None else source.end) - (source.start or 0.0))
        for source in result.sources
        if source.kind == "video" and source.duration_s is not None
    )
    used = {
        "answers": len(result.answers) + sum(len(each.answers) for each in result.segments),
        "frames": usage.frames,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "bytes_fetched": usage.bytes_fetched,
        "video_s": video_s,
        "processing_s": usage.fetching_s + usage.sampling_s + usage.generating_s + usage.storing_s,
    }
    return " ".join(f"{used[name]:.15g}" for name in _USED)


def _parse(text: str | None) -> _Numbers:
    """Parses the numbers of a field; what another program wrote counts nothing."""
    try:
        found = [float(word) for word in (text or "").split()]
    except ValueError:
        found = []
    found = [number if 0 <= number < 1e15 else 0.0 for number in found]
    return (found + [0.0] * len(_NUMBERS))[: len(_NUMBERS)]


def _make_row(name: _Name, numbers: _Numbers) -> UsageRow:
    found = {
        field: number if field.endswith("_s") else round(number)
        for field, number in zip(_NUMBERS, numbers, strict=True)
    }
    return UsageRow.model_validate({"name": name[0], "other": name[1], **found})


class UsageSums:
    """Sums over the stored hashes of tenants and days, by one dimension."""

    def __init__(self, by: UsageBy) -> None:
        self._by = by
        self._sums: dict[_Name, _Numbers] = defaultdict(lambda: [0.0] * len(_NUMBERS))

    def add(self, fields: Mapping[str, str | None], *, day: str, tenant: str) -> None:
        """Adds the hash of one tenant and day."""
        all_jobs = _parse(fields.get("all"))
        if self._by in ("day", "tenant"):
            self._add((day if self._by == "day" else tenant or None, False), all_jobs)
            return
        left = all_jobs
        for field, text in fields.items():
            kind, has_name, name = field.partition("=")
            if kind == self._by:
                numbers = _parse(text)
                self._add((name, False) if has_name else (None, True), numbers)
                left = [max(0.0, a - b) for a, b in zip(left, numbers, strict=True)]
        if self._by != "tag" and any(left[: len(_ENDS)]):  # a job may have several tags
            self._add((None, False), left)

    def _add(self, name: _Name, numbers: Iterable[float]) -> None:
        self._sums[name] = [a + b for a, b in zip(self._sums[name], numbers, strict=True)]

    def list_rows(self) -> list[UsageRow]:
        """Returns the rows of which any job ended, by their names; those without one are last."""
        names = sorted(self._sums, key=lambda name: (name[1], name[0] is None, name[0] or ""))
        return [
            _make_row(name, self._sums[name])
            for name in names
            if any(self._sums[name][: len(_ENDS)])
        ]
