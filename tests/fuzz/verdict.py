"""What became of one damaged file: the definition of a wrong frame passed off as right.

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
same damage, and the frame is what this file holds. So that nothing hides there, three kinds of
frames that are marked exact and are not wrong by this definition are counted apart (`doubts`):

- `unread`, `misread`: the burnt-in number cannot be read, or is not that of the sound clip's
  picture at this time. Damage, splices and moved packets give these in the reference as well;
- `entered`: equal to the picture as it looks when decoding begins at a keyframe, and not as it
  looks when the file is read from the start: a damaged keyframe;
- `unstable`: the decoder shows memory that it never wrote, differently each time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fuzz.asked import Given, Picture
from fuzz.referee import Reference, Seen

__all__ = ["CLASSES", "DOUBTS", "FAULTS", "Verdict", "judge"]

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
"""From best to worst; a file is as bad as the worst call on it."""
FAULTS = CLASSES[4:]
DOUBTS = ("unread", "misread", "entered", "unstable")
_ROUNDING_S = 0.0011
"""Containers round times to their tick, Matroska and FLV to a millisecond."""
_HARMLESS = ("fewer_frames", "clip_shortened")
"""Warnings that tell of the request, not of damage."""


@dataclass(frozen=True)
class Verdict:
    """`why` is empty for what is right."""

    name: str
    why: str = ""
    codes: tuple[str, ...] = ()
    """Of the refusals."""
    doubts: tuple[str, ...] = ()
    """See the module's text."""


def judge(
    given: Sequence[Given], reference: Reference | None, numbers_s: Sequence[float]
) -> Verdict:
    """`numbers_s[n]` is when the sound clip shows picture n; no reference: nothing to compare."""
    verdicts = [_judge_call(call, reference) for call in given]
    worst = max(verdicts, key=lambda verdict: CLASSES.index(verdict.name))
    codes = tuple(sorted({call.refused for call in given if call.refused}))
    doubts: set[str] = set()
    if worst.name not in FAULTS and reference is not None:
        exact = [p for call in given for p in call.pictures if p.exact]
        doubts.update(*(_doubts(picture, reference, numbers_s) for picture in exact))
    return Verdict(worst.name, worst.why, codes, tuple(sorted(doubts)))


def _judge_call(call: Given, reference: Reference | None) -> Verdict:
    if call.unexpected:
        return Verdict("unexpected_exception", f"{call.ask}: {call.unexpected}")
    if call.refused:
        return Verdict("refused", f"{call.ask}: {call.refused}: {call.text}")
    if reference is None:
        return Verdict("no_reference", "the reference decoder gave no answer")
    wrong = next(_wrongs(call, reference), None)
    if wrong:
        return Verdict("wrong_passed_as_right", f"{call.ask}: {wrong}")
    said = [warning for warning in call.warnings if warning not in _HARMLESS]
    if said or not all(picture.exact for picture in call.pictures):
        return Verdict("damaged_said_so", f"{call.ask}: {said or 'not exact'}")
    return Verdict("right")


def _wrongs(call: Given, reference: Reference) -> Iterator[str]:
    for picture in call.pictures:
        if picture.exact:
            yield from _unlike(picture, reference)
    timed = sorted((s.tick, n) for n, s in enumerate(reference.pictures) if s.tick is not None)
    starts = [picture.pts_s for picture in call.pictures]
    for instant_s in _instants_s(call):
        at = bisect_right(starts, instant_s + _ROUNDING_S) - 1
        picture = call.pictures[max(0, at)]
        if picture.exact and not _on_screen(picture, instant_s, timed, reference):
            yield f"{picture} is not on screen at {instant_s:.4f} s"


def _unlike(picture: Picture, reference: Reference) -> Iterator[str]:
    same_time = _at(picture, reference)
    if not same_time:
        yield f"{picture}: no picture has this time"
        return
    shown = {seen.number for seen in same_time}
    if not (_equal(picture, same_time) or _doubts_of_pixels(picture, reference)):
        yield f"{picture}: the picture at this time has other pixels (its number: {shown})"
    known = frozenset().union(*(seen.indices for seen in same_time))
    if picture.index is not None and picture.index not in known:
        yield f"{picture}: the picture at this time has number {sorted(known)}"


def _doubts(picture: Picture, reference: Reference, numbers_s: Sequence[float]) -> Iterator[str]:
    if not _equal(picture, _at(picture, reference)):
        yield from _doubts_of_pixels(picture, reference)
    if picture.number is None:
        yield "unread"
    elif picture.number != bisect_right(numbers_s, picture.pts_s + 2 * _ROUNDING_S) - 1:
        yield "misread"


def _doubts_of_pixels(picture: Picture, reference: Reference) -> list[str]:
    ticks = {seen.tick for seen in _at(picture, reference)}
    if any((tick, picture.digest) in reference.entered for tick in ticks):
        return ["entered"]
    return ["unstable"] if ticks & reference.unstable else []


def _at(picture: Picture, reference: Reference) -> list[Seen]:
    """The pictures whose time this one claims; several in some damaged files."""
    tick = picture.pts_s / float(reference.tick_s) + reference.origin
    return [s for s in reference.pictures if s.tick is not None and abs(s.tick - tick) < 0.01]


def _equal(picture: Picture, same_time: Sequence[Seen]) -> bool:
    return any(picture.digest in seen.digests for seen in same_time)


def _instants_s(call: Given) -> list[float]:
    start_s = call.ask.start_s or 0.0
    whole_s = call.duration_s or 0.0
    end_s = whole_s if call.ask.end_s is None else min(call.ask.end_s, whole_s)
    return [start_s + k * (end_s - start_s) / call.ask.frames for k in range(call.ask.frames)]


def _on_screen(
    picture: Picture, instant_s: float, timed: Sequence[tuple[int, int]], reference: Reference
) -> bool:
    """True if nothing later than the picture has come by then, give or take the rounding."""
    earliest = (instant_s - _ROUNDING_S) / float(reference.tick_s) + reference.origin
    at = bisect_right(timed, (earliest, len(timed)))
    if at == 0:
        return True  # nothing is on screen yet: the first picture stands in
    last_s = float((timed[at - 1][0] - reference.origin) * reference.tick_s)
    return picture.pts_s > last_s - 1e-6 and picture.pts_s <= instant_s + _ROUNDING_S
