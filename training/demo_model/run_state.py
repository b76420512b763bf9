"""State of a training run between sittings: a run that is stopped goes on as if it never was.

Everything that decides the next step is kept: weights, the optimizers' moments, the random numbers'
states, the number of steps done. A file is written beside the last one and renamed, so that a run
that is killed while it saves has lost a minute, not everything.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["RunState", "stopped_by_signals"]

_FILE = "training_state.pt"


class RunState:
    """Progress of a run, with all that it needs to go on."""

    def __init__(self, folder: Path, identity: dict[str, Any], rng: random.Random) -> None:
        """
        Arguments:
            folder: of the checkpoint; the state is a file in it.
            identity: what must be the same in every sitting.
            rng: draws clips and questions; continues where it stood.

        Raises:
            ValueError: the folder holds the state of another run.
        """
        self._path, self._identity, self._rng = folder / _FILE, identity, rng
        self._began = time.monotonic()
        self._held: dict[str, Any] = {}
        if self._path.exists():
            self._held = torch.load(self._path, weights_only=False)
            self._refuse_other(self._held["identity"])
            rng.setstate(self._held["rng"])
            torch.set_rng_state(self._held["torch_rng"])
        self._hours_before: float = self._held.get("hours", 0.0)
        self.sittings: int = self._held.get("sittings", 0) + 1
        self.part: str | None = self._held.get("part")
        """Part of the run that was under way; None: nothing is done."""
        self.step: int = self._held.get("step", 0)
        """Steps of that part that are done."""

    @property
    def hours(self) -> float:
        """Time that the run took, over all sittings."""
        return self._hours_before + (time.monotonic() - self._began) / 3600

    def restore(self, modules: dict[str, torch.nn.Module], optimizers: list[Optimizer]) -> None:
        """Loads what was saved of these."""
        for name, module in modules.items():
            module.load_state_dict(self._held["modules"][name])
        for optimizer, held in zip(optimizers, self._held["optimizers"], strict=True):
            optimizer.load_state_dict(held)

    def save(
        self,
        part: str,
        step: int,
        modules: dict[str, torch.nn.Module],
        optimizers: list[Optimizer],
    ) -> None:
        """Writes the state after so many steps of a part."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        torch.save(
            {
                "identity": self._identity,
                "part": part,
                "step": step,
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "rng": self._rng.getstate(),
                "torch_rng": torch.get_rng_state(),
                "hours": self.hours,
                "sittings": self.sittings,
            },
            unfinished,
        )
        os.replace(unfinished, self._path)

    def delete(self) -> None:
        """Removes the file of a run that is complete: the checkpoint does not need it."""
        self._path.unlink(missing_ok=True)

    def _refuse_other(self, found: dict[str, Any]) -> None:
        other = [name for name, value in self._identity.items() if found.get(name) != value]
        if other:
            differences = ", ".join(
                f"{name} {found.get(name)!r}, not {self._identity[name]!r}" for name in other
            )
            raise ValueError(
                f"{self._path} is of a run with {differences}; go on with the same options, "
                "or write to another folder"
            )


@contextmanager
def stopped_by_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in the list that it yields, for the loop to stop after a step."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _: received.append(number)) for each in signals]
    try:
        yield received
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
