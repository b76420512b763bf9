"""Makes a damaged file by its number: the same seed and number give the same bytes.

A file is an intact clip with one or two kinds of damage, which hit payload, headers and order:
random bytes rarely reach a timestamp, so some kinds aim at what `places` finds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fuzz.clips import CLIPS, Clip
from fuzz.places import Field, fields, fix_ogg_checksums, units

__all__ = ["Damaged", "damaged"]


@dataclass(frozen=True)
class Damaged:
    """A damaged file, and how it was made."""

    number: int
    clip: Clip
    kinds: tuple[str, ...]
    data: bytes


@dataclass(frozen=True)
class _Case:
    rng: random.Random
    suffix: str
    sound: Mapping[str, bytes]
    """The intact clips, for splices."""

    def span(self, data: bytes, longest: int) -> tuple[int, int]:
        """Returns a random span of the file; short ones are as likely as long ones."""
        length = min(len(data), int(2 ** self.rng.uniform(0, longest.bit_length() - 1)))
        at = self.rng.randrange(len(data) - length + 1)
        return at, at + length


def damaged(number: int, seed: int, sound: Mapping[str, bytes]) -> Damaged:
    """Returns file `number` of the run `seed`; the clips take turns."""
    clip = CLIPS[number % len(CLIPS)]
    rng = random.Random(f"{seed}/{number}")
    data = sound[clip.name]
    case = _Case(rng, "." + clip.name.rpartition(".")[2], sound)
    names, weights = zip(*((name, weight) for name, (_, weight) in _KINDS.items()), strict=True)
    kinds = rng.choices(names, weights, k=2 if rng.random() < 0.2 else 1)
    for kind in kinds:
        data = _KINDS[kind][0](case, data) or b"\0"
    return Damaged(number, clip, tuple(kinds), data)


def _none(case: _Case, data: bytes) -> bytes:
    return data


def _few_bits(case: _Case, data: bytes) -> bytes:
    return _flip(case.rng, data, case.rng.randint(1, 8))


def _many_bits(case: _Case, data: bytes) -> bytes:
    share = 10 ** case.rng.uniform(-3.5, -1)
    return _flip(case.rng, data, max(9, int(len(data) * share)))


def _flip(rng: random.Random, data: bytes, count: int) -> bytes:
    out = bytearray(data)
    for _ in range(count):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _one_value(case: _Case, data: bytes) -> bytes:
    """Overwrites a span with zeros or ones, as a bad disk leaves them."""
    start, end = case.span(data, 4096)
    return data[:start] + case.rng.choice([b"\0", b"\xff"]) * (end - start) + data[end:]


def _noise(case: _Case, data: bytes) -> bytes:
    start, end = case.span(data, 4096)
    return data[:start] + case.rng.randbytes(end - start) + data[end:]


def _cut(case: _Case, data: bytes) -> bytes:
    """Cuts the file off; half of the cuts are near its end, as in a nearly complete upload."""
    share = case.rng.random()
    return data[: int(len(data) * (1 - share * 0.1 if case.rng.random() < 0.5 else share))]


def _lost_block(case: _Case, data: bytes) -> bytes:
    start, end = case.span(data, 4096)
    return data[:start] + data[end:]


def _double_block(case: _Case, data: bytes) -> bytes:
    start, end = case.span(data, 4096)
    at = case.rng.choice([end, case.rng.randrange(len(data))])
    return data[:at] + data[start:end] + data[at:]


def _swapped_blocks(case: _Case, data: bytes) -> bytes:
    start, end = case.span(data, 4096)
    other = case.rng.randrange(len(data) - (end - start) + 1)
    out = bytearray(data)
    out[start:end], out[other : other + end - start] = (
        data[other : other + end - start],
        data[start:end],
    )
    return bytes(out)


def _garbage(case: _Case, data: bytes) -> bytes:
    at = case.rng.choice(
        [0, len(data), case.rng.randrange(len(data)), case.rng.randrange(len(data))]
    )
    return data[:at] + case.rng.randbytes(int(2 ** case.rng.uniform(0, 12))) + data[at:]


def _splice(case: _Case, data: bytes) -> bytes:
    """Joins this file's head to another one's tail, half of the time of the same container."""
    alike = [name for name in case.sound if name.endswith(case.suffix)]
    other = case.sound[case.rng.choice(alike if case.rng.random() < 0.5 else sorted(case.sound))]
    start, end = case.rng.random(), case.rng.choice([0.0, case.rng.random()])
    return data[: int(len(data) * start)] + other[int(len(other) * end) :]


def _header(case: _Case, data: bytes) -> bytes:
    """Changes one to three header fields of any kind: sizes, timestamps, tables."""
    found = fields(case.suffix, data)
    if not found:
        return _few_bits(case, data)
    kinds = sorted({field.kind for field in found})
    out = bytearray(data)
    for _ in range(case.rng.choice([1, 1, 2, 3])):
        kind = case.rng.choice(kinds)
        field = case.rng.choice([field for field in found if field.kind == kind])
        order: Literal["little", "big"] = "little" if field.little else "big"
        old = int.from_bytes(out[field.at : field.at + field.size], order)
        value = _another(case.rng, old, field)
        out[field.at : field.at + field.size] = value.to_bytes(field.size, order)
    return _sealed(case, bytes(out))


def _another(rng: random.Random, old: int, field: Field) -> int:
    ones = (1 << 8 * field.size) - 1
    value: int = rng.choice(
        [
            rng.choice([0, 1, ones, ones >> 1, (ones >> 1) + 1]),
            old + rng.choice([-2, -1, 1, 2]),
            old + rng.randint(-5000, 5000),
            rng.choice([old * 2, old // 2]),
            old ^ 1 << rng.randrange(8 * field.size),
            rng.getrandbits(8 * field.size),
        ]
    )
    return value & ones


def _unit(case: _Case, data: bytes) -> bytes:
    """Loses, doubles, swaps or moves whole packets, tags or pages, and changes nothing else."""
    found = units(case.suffix, data)
    if len(found) < 2:
        return _lost_block(case, data)
    (a, b), (c, d) = sorted(case.rng.sample(found, 2))
    what = case.rng.choice(["lose", "double", "swap", "move"])
    if what == "lose":
        data = data[:c] + data[d:]
    elif what == "double":
        data = data[:d] + data[c:]
    elif what == "swap" and b <= c:
        data = data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
    elif b <= c:
        data = data[:a] + data[b:d] + data[a:b] + data[d:]
    return _sealed(case, data)


def _sealed(case: _Case, data: bytes) -> bytes:
    sealing = case.suffix == ".ogv" and case.rng.random() < 0.8
    return fix_ogg_checksums(data) if sealing else data


_KINDS: dict[str, tuple[Callable[[_Case, bytes], bytes], int]] = {
    "none": (_none, 3),
    "few bits": (_few_bits, 10),
    "many bits": (_many_bits, 10),
    "one value": (_one_value, 8),
    "noise": (_noise, 6),
    "cut": (_cut, 8),
    "lost block": (_lost_block, 6),
    "double block": (_double_block, 6),
    "swapped blocks": (_swapped_blocks, 6),
    "garbage": (_garbage, 6),
    "splice": (_splice, 6),
    "header": (_header, 35),
    "unit": (_unit, 15),
}
"""Each kind of damage, with its weight."""
