"""A lane runs two child processes one after the other on each file: sampler and referee.

Through `direct` the sampler runs `sample_frames` in the child itself; through `decoders` it has
a decoding process do it, as a worker has. A crash of either is seen as one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz.asked import ASKED, LIMITS, Sampled, direct, through_decoders
from fuzz.child import Answer, Child, Died, MakeWork, Silent
from fuzz.damage import Damaged
from fuzz.referee import Reference, referee
from fuzz.verdict import Judge, Verdict

__all__ = ["THROUGH", "Lane", "Outcome"]

THROUGH: dict[str, MakeWork] = {"direct": direct, "decoders": through_decoders}
REFEREE_S = 60.0
GRACE_S = 20.0
"""Time beyond each call's own `decode_timeout_s`: a process that outlasts both hangs."""


@dataclass(frozen=True)
class Outcome:
    """`sampled` and `reference` are None where the child gave no answer."""

    file: Damaged
    verdict: Verdict
    sampled: Sampled | None
    reference: Reference | None
    ours_s: float
    """Time that the sampler took; `theirs_s` is the referee's."""
    theirs_s: float


class Lane:
    """Holds two processes; a context manager."""

    def __init__(self, folder: Path, through: str = "decoders") -> None:
        self._folder = folder
        self._sound: set[str] = set()
        self._stack = ExitStack()
        self._sampler = self._stack.enter_context(Child(THROUGH[through]))
        self._referee = self._stack.enter_context(Child(referee))

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def learn(self, sound: Mapping[str, bytes]) -> None:
        """Notes the digests of the intact clips' pictures; to be called before `run`."""
        for name, data in sound.items():
            with self._file(name, data) as path:
                reference = self._reference(path)
            assert reference is not None, f"the reference decoder gives no answer for {name}"
            for seen in reference.pictures:
                self._sound |= seen.digests

    def run(self, file: Damaged) -> Outcome:
        with self._file(f"{file.number}-{file.clip.name}", file.data) as path:
            began = time.monotonic()
            self._sampler.ask(path)
            ours = self._sampler.answer(len(ASKED) * LIMITS.decode_timeout_s + GRACE_S)
            answered = time.monotonic()
            reference = self._reference(path)
            ended = time.monotonic()
        verdict = self._verdict(file, ours, reference)
        sampled = ours.value if isinstance(ours, Answer) else None
        return Outcome(file, verdict, sampled, reference, answered - began, ended - answered)

    @contextmanager
    def _file(self, name: str, data: bytes) -> Iterator[Path]:
        path = self._folder / name
        path.write_bytes(data)
        try:
            yield path
        finally:
            path.unlink()

    def _reference(self, path: Path) -> Reference | None:
        self._referee.ask(path)
        answer = self._referee.answer(REFEREE_S)
        return answer.value if isinstance(answer, Answer) else None

    def _verdict(
        self, file: Damaged, ours: Answer | Died | Silent, reference: Reference | None
    ) -> Verdict:
        if isinstance(ours, Died):
            return Verdict("crash", f"the process ended with {ours.exit_code}")
        if isinstance(ours, Silent):
            return Verdict("hang", f"no answer within {ours.after_s:g} s")
        shown_s = [float(time_s) for time_s in file.clip.recipe.shown_s]
        return Judge(shown_s, self._sound).judge(ours.value.given, reference)
