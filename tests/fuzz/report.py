"""Counts of a run: per container and class, per refusal, per damage, and of what is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fuzz.lane import Outcome
from fuzz.verdict import CLASSES, DOUBTS, FAULTS

__all__ = ["Report"]

MOST_GROWTH_BYTES = 32 << 20
"""Growth from the second quarter of the run to the last, in medians. A leaked picture of these clips is
20 KB, a leaked container about 100 KB: either, once a file, would show in 5,000 files."""


@dataclass
class Report:
    """Fed with outcomes; says at the end whether the run found a fault."""

    seed: int
    asked_files: int
    through: str
    by_container: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_damage: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    doubts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Files by damage and doubt; see `verdict`."""
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    held: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """(descriptors, resident bytes) after each file, by the lane."""
    slowest: list[tuple[float, float, int]] = field(default_factory=list)
    """(sampler's seconds, referee's, file) of the three slowest of either."""
    seconds: float = 0.0

    def add(self, outcome: Outcome, lane: int = 0) -> None:
        verdict, file = outcome.verdict, outcome.file
        self.by_container[file.clip.container, verdict.name] += 1
        damage = " + ".join(dict.fromkeys(file.kinds))
        self.by_damage[damage, verdict.name] += 1
        self.refusals.update(verdict.codes)
        self.doubts.update((damage, doubt) for doubt in verdict.doubts)
        if verdict.name in FAULTS:
            self.faults.append((file.number, verdict.name, verdict.why))
        self.slowest.append((outcome.ours_s, outcome.theirs_s, file.number))
        self.slowest = sorted(self.slowest, key=lambda slow: -max(slow[:2]))[:3]
        if outcome.sampled is not None:
            sampled = outcome.sampled
            self.held.setdefault(lane, []).append((sampled.descriptors, sampled.resident_bytes))

    @property
    def files(self) -> int:
        return self.by_container.total()

    @property
    def counts(self) -> dict[str, int]:
        """Number of files by class."""
        return {name: _total(self.by_container, name) for name in CLASSES}

    @property
    def growth(self) -> tuple[int, int]:
        """(descriptors, resident bytes) that a process gained, of the worst."""
        grown = [_grown(held) for held in self.held.values() if len(held) >= 8]
        return max((a for a, _ in grown), default=0), max((b for _, b in grown), default=0)

    @property
    def leaks(self) -> bool:
        descriptors, resident_bytes = self.growth
        return descriptors > 0 or resident_bytes > MOST_GROWTH_BYTES

    @property
    def sound(self) -> bool:
        return not self.faults and not self.leaks and self.files == self.asked_files

    def as_json(self) -> dict[str, Any]:
        descriptors, resident_bytes = self.growth
        return {
            "files": self.files,
            "seed": self.seed,
            "through": self.through,
            "seconds": round(self.seconds, 1),
            "counts": {**self.counts, "leak": int(self.leaks)},
            "containers": _nested(self.by_container),
            "refused": dict(self.refusals.most_common()),
            "doubts": _nested(self.doubts),
            "slowest": [
                {"number": number, "ours_s": round(ours_s, 2), "theirs_s": round(theirs_s, 2)}
                for ours_s, theirs_s, number in self.slowest
            ],
            "growth": {"descriptors": descriptors, "resident_bytes": resident_bytes},
            "failing": [
                {"number": number, "class": name, "why": why} for number, name, why in self.faults
            ],
        }

    def text(self) -> str:
        descriptors, resident_bytes = self.growth
        refused = ", ".join(f"{code} {n}" for code, n in self.refusals.most_common()) or "none"
        lines = [
            *_table("container", self.by_container, CLASSES),
            "",
            *_table("doubts (files), by damage", self.doubts, DOUBTS),
            "",
            f"{self.files} of {self.asked_files} files in {self.seconds:.0f} s, seed {self.seed}, "
            f"through {self.through}",
            f"refused, by code (files): {refused}",
            f"leak: {'YES' if self.leaks else 'none'} (descriptors +{descriptors}, memory "
            f"{resident_bytes / 2**20:+.1f} MiB, at most +0 and +{MOST_GROWTH_BYTES >> 20} MiB)",
        ]
        slowest = ", ".join(f"{n}: {a:.1f} and {b:.1f} s" for a, b, n in self.slowest)
        lines.append(f"slowest files, sampler and referee: {slowest}")
        for number, name, why in self.faults[:20]:
            lines.append(f"{name}: --seed {self.seed} --only {number}: {why.splitlines()[-1]}")
        return "\n".join(lines)


def _total(counts: Counter[tuple[str, str]], column: str) -> int:
    return sum(count for (_, name), count in counts.items() if name == column)


def _grown(held: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the growth from the second quarter to the last: the first one warms caches up."""
    quarter = len(held) // 4
    early, late = held[quarter : 2 * quarter], held[-quarter:]
    grown = [round(median(h[n] for h in late) - median(h[n] for h in early)) for n in (0, 1)]
    return grown[0], grown[1]


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (row, column), count in sorted(counts.items()):
        if count:
            nested.setdefault(row, {})[column] = count
    return nested


def _table(head: str, counts: Counter[tuple[str, str]], columns: Iterable[str]) -> list[str]:
    shown = [name for name in columns if _total(counts, name)]
    rows = sorted({row for (row, _), count in counts.items() if count})
    width = max(map(len, [head, *rows]))
    titles = [name.replace("_", " ") for name in shown]
    lines = [head.ljust(width) + "".join(f"  {title}" for title in titles)]
    for row in [*rows, "all"]:
        cells = [_total(counts, c) if row == "all" else counts[row, c] for c in shown]
        lines.append(
            row.ljust(width)
            + "".join(f"  {n:>{len(title)}}" for n, title in zip(cells, titles, strict=True))
        )
    return lines
