"""Two children, one after the other, on each file: the sampler and the referee.

Through `direct` the sampler runs `sample_frames` in the child itself, so that a crash is seen
as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.asked import ASKED, LIMITS, Sampled, sampler
from fuzz.child import Answer, Child, Died, Silent
from fuzz.damage import Damaged
from fuzz.referee import Reference, referee
from fuzz.verdict import Verdict, judge

__all__ = ["THROUGH", "Lane", "Outcome"]

THROUGH: dict[str, Callable[[], Callable[[Path], Sampled]]] = {"direct": sampler}
REFEREE_S = 60.0
GRACE_S = 20.0
"""On top of each call's own `decode_timeout_s`: a hang is what outlasts both."""


@dataclass(frozen=True)
class Outcome:
    """`sampled` and `reference` are None where the child gave no answer."""

    file: Damaged
    verdict: Verdict
    sampled: Sampled | None
    reference: Reference | None
    ours_s: float
    """How long the sampler took, and the referee."""
    theirs_s: float


class Lane:
    """Holds two processes; a context manager."""

    def __init__(self, folder: Path, through: str = "direct") -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._sampler = self._stack.enter_context(Child(THROUGH[through]))
        self._referee = self._stack.enter_context(Child(referee))

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, file: Damaged) -> Outcome:
        path = self._folder / f"{file.number}-{file.clip.name}"
        path.write_bytes(file.data)
        try:
            began = time.monotonic()
            self._sampler.ask(path)
            ours = self._sampler.answer(len(ASKED) * LIMITS.decode_timeout_s + GRACE_S)
            answered = time.monotonic()
            reference = self._reference(path, thorough=False)
            verdict = _verdict(file, ours, reference)
            if verdict.name == "wrong_passed_as_right":
                reference = self._reference(path, thorough=True) or reference
                verdict = _verdict(file, ours, reference)
        finally:
            path.unlink()
        sampled = ours.value if isinstance(ours, Answer) else None
        theirs_s = time.monotonic() - answered
        return Outcome(file, verdict, sampled, reference, answered - began, theirs_s)

    def _reference(self, path: Path, *, thorough: bool) -> Reference | None:
        self._referee.ask((path, thorough))
        answer = self._referee.answer(REFEREE_S)
        return answer.value if isinstance(answer, Answer) else None


def _verdict(file: Damaged, ours: Answer | Died | Silent, reference: Any) -> Verdict:
    if isinstance(ours, Died):
        return Verdict("crash", f"the process ended with {ours.exit_code}")
    if isinstance(ours, Silent):
        return Verdict("hang", f"no answer within {ours.after_s:g} s")
    shown_s: Sequence[float] = [float(time_s) for time_s in file.clip.recipe.shown_s]
    return judge(ours.value.given, reference, shown_s)
