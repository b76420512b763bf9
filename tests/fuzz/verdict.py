"""The verdict on one damaged file: defines a wrong frame that is passed off as right.

A caller who sees `exact=True` believes: this is the picture on screen at that instant. So for
every instant asked for, the frame given for it (the last one with `pts_s` <= instant) must, if it
is marked exact,

- be a picture of the damaged file, pixel for pixel, at the time that its `pts_s` claims;
- be the last picture with pts <= instant: no later one is on screen by then;
- bear that picture's number in `index`, or none.

What is in the file is what `referee` finds: the damaged file, read and decoded from end to end,
no matter what the sound clip held. That is fair both ways. A changed timestamp changes what the
file says, and no sampler can know better. Changed picture data may decode to something else
without the decoder noticing, since hardly a codec has checksums: then the reference shows the
same damage, and the frame is what this file holds.

Such a picture's pixels also depend on what the decoder did before: a damaged keyframe leans on
pictures before it (VP8 keeps its probabilities), lost blocks are concealed with what is at hand.
So where the reference's picture is not what the sound clip shows at this time, three others are
not called wrong: a damaged picture (none of any sound clip's), one with the same number, and the
sound clip's own. The last also where the reference has no picture at all: whoever seeks past the
damage still finds sound ones. And there a picture is not wrong that FFmpeg itself shows at that time
when it leaves out what nothing refers to: the damage is in one of those. So that nothing hides
there, frames marked exact that are not wrong by this definition are counted apart, as `doubts`:

- `unread`, `misread`: the burnt-in number cannot be read, or is not that of the sound clip's
  picture at this time. Damage, splices and moved packets give these in the reference as well;
- `unlike`: a damaged picture in both, and not the same pixels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from fuzz.asked import LIMITS, Given, Picture
from fuzz.referee import Reference, Seen

from videoqa.errors import DecoderCrashed, DecoderLost, DecodingFailed

__all__ = ["CLASSES", "DOUBTS", "FAULTS", "Judge", "Verdict"]

CLASSES = (
    "right",
    "damaged_said_so",
    "refused",
    "no_reference",
    "unexpected_exception",
    "wrong_passed_as_right",
    "hang",
    "crash",
)
"""Verdicts from best to worst; a file is as bad as the worst call on it."""
FAULTS = CLASSES[4:]
DOUBTS = ("unread", "misread", "unlike")
_ROUNDING_S = 0.0011
"""Containers round times to their tick, Matroska and FLV to a millisecond."""
_LATE_S = 2.0
"""Whoever answers later than this after the deadline has not watched it, but was stopped."""
_HARMLESS = ("fewer_frames", "clip_shortened")
"""Warnings that tell of the request, not of damage."""


@dataclass(frozen=True)
class Verdict:
    """`why` is empty for what is right."""

    name: str
    why: str = ""
    codes: tuple[str, ...] = ()
    """Codes of the refusals."""
    doubts: tuple[str, ...] = ()
    """See the module's text."""


@dataclass(frozen=True)
class Judge:
    """Compares what was given with the reference."""

    shown_s: Sequence[float]
    """Time from which the intact clip shows picture n."""
    sound: Set[str]
    """Digests of the pictures of all intact clips."""

    def judge(self, given: Sequence[Given], reference: Reference | None) -> Verdict:
        """Without a reference there is nothing to compare with."""
        verdicts = [self._judge_call(call, reference) for call in given]
        worst = max(verdicts, key=lambda verdict: CLASSES.index(verdict.name))
        codes = tuple(sorted({call.refused for call in given if call.refused}))
        doubts: set[str] = set()
        if worst.name not in FAULTS and reference is not None:
            exact = [p for call in given for p in call.pictures if p.exact]
            doubts.update(*(self._doubts(picture, reference) for picture in exact))
        return Verdict(worst.name, worst.why, codes, tuple(sorted(doubts)))

    def _judge_call(self, call: Given, reference: Reference | None) -> Verdict:
        if call.unexpected or call.refused == DecodingFailed.code:
            return Verdict("unexpected_exception", f"{call.ask}: {call.unexpected or call.text}")
        if call.refused in (DecoderCrashed.code, DecoderLost.code):
            return Verdict("crash", f"{call.ask}: {call.text}")
        if call.seconds > LIMITS.decode_timeout_s + _LATE_S:
            return Verdict("hang", f"{call.ask}: answered after {call.seconds:.1f} s")
        if call.refused:
            return Verdict("refused", f"{call.ask}: {call.refused}: {call.text}")
        if reference is None:
            return Verdict("no_reference", "the reference decoder gave no answer")
        wrong = next(self._wrongs(call, reference), None)
        if wrong:
            return Verdict("wrong_passed_as_right", f"{call.ask}: {wrong}")
        said = [warning for warning in call.warnings if warning not in _HARMLESS]
        if said or not all(picture.exact for picture in call.pictures):
            return Verdict("damaged_said_so", f"{call.ask}: {said or 'not exact'}")
        return Verdict("right")

    def _wrongs(self, call: Given, reference: Reference) -> Iterator[str]:
        for picture in call.pictures:
            if picture.exact:
                yield from self._unlike(picture, reference)
        times_s = sorted(time_s for time_s, _ in reference.timed())
        starts = [picture.pts_s for picture in call.pictures]
        for instant_s in _instants_s(call):
            at = bisect_right(starts, instant_s + _ROUNDING_S) - 1
            picture = call.pictures[max(0, at)]
            if picture.exact and not _on_screen(picture, instant_s, times_s):
                yield f"{picture} is not on screen at {instant_s:.4f} s"

    def _unlike(self, picture: Picture, reference: Reference) -> Iterator[str]:
        same_time = _at(picture, reference)
        if not same_time:
            placed = self._in_place(picture, picture.pts_s, reference)
            spared = _equal(picture, _at(picture, reference, spared=True))
            if not spared and (picture.digest not in self.sound or not placed):
                yield f"{picture}: no picture has this time"
            return
        damaged = any(
            self.sound.isdisjoint(seen.digests)
            or not self._in_place(seen, picture.pts_s, reference)
            for seen in same_time
        )
        shown = {seen.number for seen in same_time}
        fair = (
            picture.digest not in self.sound
            or picture.number in shown
            or self._in_place(picture, picture.pts_s, reference)
        )
        if not (_equal(picture, same_time) or (damaged and fair)):
            yield f"{picture}: the picture at this time has other pixels (its number: {shown})"
        known = frozenset().union(*(seen.indices for seen in same_time))
        if picture.index is not None and picture.index not in known:
            yield f"{picture}: the picture at this time has number {sorted(known)}"

    def _doubts(self, picture: Picture, reference: Reference) -> Iterator[str]:
        if not _equal(picture, _at(picture, reference)):
            yield "unlike"
        if picture.number is None:
            yield "unread"
        elif not self._in_place(picture, picture.pts_s, reference):
            yield "misread"

    def _in_place(self, picture: Picture | Seen, pts_s: float, reference: Reference) -> bool:
        """Returns True if it bears the number that the intact clip shows at this time.

        Times count from the first picture that is left: the intact clip's may be lost.
        """
        first = reference.first
        known = first is not None and first < len(self.shown_s)
        begin_s = self.shown_s[first] if known and first is not None else 0.0
        return picture.number == bisect_right(self.shown_s, begin_s + pts_s + 2 * _ROUNDING_S) - 1


def _at(picture: Picture, reference: Reference, *, spared: bool = False) -> list[Seen]:
    """The pictures whose time this one claims; several in some damaged files."""
    timed = reference.timed(spared=spared)
    return [seen for time_s, seen in timed if abs(time_s - picture.pts_s) < 1e-6]


def _equal(picture: Picture, same_time: Sequence[Seen]) -> bool:
    return any(picture.digest in seen.digests for seen in same_time)


def _instants_s(call: Given) -> list[float]:
    start_s = call.ask.start_s or 0.0
    whole_s = call.duration_s or 0.0
    end_s = whole_s if call.ask.end_s is None else min(call.ask.end_s, whole_s)
    return [start_s + k * (end_s - start_s) / call.ask.frames for k in range(call.ask.frames)]


def _on_screen(picture: Picture, instant_s: float, times_s: Sequence[float]) -> bool:
    """True if nothing later than the picture has come by then, give or take the rounding."""
    come = times_s[: bisect_right(times_s, instant_s - _ROUNDING_S)]
    if not come:
        return True  # nothing is on screen yet: the first picture stands in
    return come[-1] - 1e-6 < picture.pts_s <= instant_s + _ROUNDING_S
