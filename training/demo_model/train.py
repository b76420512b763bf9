"""Training of the demo model from random weights, on synthetic clips.

    python training/demo_model/train.py --out DIR

One thread, and steps are counted, not minutes: the same seed gives the same weights, bit by bit, on the
same kind of processor with the same torch, over any number of sittings: stopped by Ctrl-C, SIGTERM or a crash, the
same command goes on from the last saved step. Two settings of glibc's malloc make a step several times
faster (large tensors stay mapped between steps); the script restarts itself with them where they are
missing.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from batches import IGNORED, Batch, clip_batch, pair_batch
from checkpoint import new_model, new_processor, new_tokenizer, save
from run_state import RunState, stopped_by_signals
from warmup import PatchHead, warmup_loss

#: Large tensors stay mapped between steps: 0.8 s a step instead of 4.2.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
_ROWS = 32
_REPORT_EVERY_S = 60.0
_SCENES = {"single": 0.34, "sequence": 0.26, "group": 0.40}
_HELD_OUT_SEED = 1_000_000

Shares = dict[str, float]
"""Shares of right answers, 0..1, by name."""


@dataclass(frozen=True)
class Plan:
    """Numbers of steps and rates of a training run."""

    out: Path
    seed: int
    #: Steps of the vision tower alone.
    warmup_steps: int
    steps: int
    learning_rate: float
    #: Full learning rate until here, then a cosine down to 2%.
    decay_from: float
    pair_share: float


class Optimizers:
    """Muon for the layers' matrices, AdamW for everything else, with one schedule."""

    def __init__(self, modules: list[torch.nn.Module], learning_rate: float) -> None:
        named = [
            (name, p)
            for module in modules
            for name, p in module.named_parameters()
            if p.requires_grad
        ]
        matrices = [p for name, p in named if p.ndim == 2 and not _is_table(name)]
        rest = [p for name, p in named if p.ndim != 2 or _is_table(name)]
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._params = matrices + rest

    def step(self, learning_rate: float) -> None:
        """Updates from the gradients, clipped to norm 1, and clears them."""
        torch.nn.utils.clip_grad_norm_(self._params, 1.0)
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _is_table(name: str) -> bool:
    """Returns True for a matrix that is looked up by row, or written to, rather than multiplied."""
    return "embed" in name or "lm_head" in name or name.startswith("linear.")


def rate(plan: Plan, done: float, step: int) -> float:
    """Returns the learning rate after the share `done` of a part."""
    fall = max(0.0, (done - plan.decay_from) / (1 - plan.decay_from))
    return (
        plan.learning_rate
        * min(1.0, (step + 1) / 100)
        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))
    )


class Training:
    """One run, in as many sittings as it takes: the vision tower's warm-up, then questions."""

    def __init__(self, plan: Plan) -> None:
        """
        Raises:
            ValueError: the folder holds the state of another run.
        """
        self._plan, self._rng = plan, random.Random(plan.seed)
        tokenizer = new_tokenizer()
        self._processor, self._model = new_processor(tokenizer), new_model(tokenizer, plan.seed)
        # on one CPU core twice as fast as "sdpa", whose backward pass is slow for short rows
        self._model.set_attn_implementation("eager")
        self._model.train()
        self._head = PatchHead(self._model.config.text_config.hidden_size)
        identity = {**asdict(plan), "torch": torch.__version__}
        del identity["out"]
        self.state = RunState(plan.out, identity, self._rng)

    def describe(self) -> str:
        """Returns what is trained, and from where."""
        size = sum(p.numel() for p in self._model.parameters())
        begun = self.state.part
        where = f"goes on at {begun} step {self.state.step}" if begun else "begins"
        return f"{size:,} parameters, {len(self._processor.tokenizer)} words; sitting {self.state.sittings} {where}"

    def run(self, stop: list[int]) -> bool:
        """Trains until the end, or until `stop` holds something; returns True at the end."""
        finished = self.state.part == "questions" or self._warm_up(stop)
        return finished and self._learn(stop)

    def _warm_up(self, stop: list[int]) -> bool:
        """Trains the vision tower alone, on the content of each patch."""
        model = self._model.model
        optimizers = Optimizers(
            [model.vision_tower, model.multi_modal_projector, self._head], self._plan.learning_rate
        )

        def lose() -> tuple[torch.Tensor, Shares]:
            return warmup_loss(self._model, self._head, self._rng)

        steps = self._plan.warmup_steps
        return self._take_steps("warm-up", steps, optimizers, lose, format_shares, stop)

    def _learn(self, stop: list[int]) -> bool:
        """Trains the whole model on questions, and saves it."""
        optimizers = Optimizers([self._model], self._plan.learning_rate)

        def lose() -> tuple[torch.Tensor, Shares]:
            batch = next_batch(self._rng, self._processor.tokenizer, self._plan)
            return answer_loss(self._model, batch)[0], {}

        def report(_: Shares) -> str:
            save(self._model, self._processor, self._plan.out)
            return format_shares(accuracy(self._model, self._processor))

        finished = self._take_steps("questions", self._plan.steps, optimizers, lose, report, stop)
        save(self._model, self._processor, self._plan.out)
        return finished

    def _take_steps(
        self,
        part: str,
        steps: int,
        optimizers: Optimizers,
        lose: Callable[[], tuple[torch.Tensor, Shares]],
        report: Callable[[Shares], str],
        stop: list[int],
    ) -> bool:
        """Takes the steps of a part that are not done yet; reports and saves once a minute."""
        modules = {"model": self._model, "head": self._head}
        if begun := self.state.part == part:
            self.state.restore(modules, optimizers.all)
        reported = time.monotonic()
        for step in range(self.state.step if begun else 0, steps):
            if stop:
                self.state.save(part, step, modules, optimizers.all)
                return False
            loss, found = lose()
            loss.backward()
            optimizers.step(rate(self._plan, step / steps, step))
            if time.monotonic() - reported > _REPORT_EVERY_S:
                self.state.save(part, step + 1, modules, optimizers.all)
                say(f"{part} {step / steps:.0%} step {step} loss {loss.item():.3f} {report(found)}")
                reported = time.monotonic()
        return True


def next_batch(rng: random.Random, tokenizer: PreTrainedTokenizerFast, plan: Plan) -> Batch:
    """Draws pairs of clips, or clips of every kind and length; many frames in fewer rows."""
    if rng.random() < plan.pair_share:
        return pair_batch(rng, tokenizer, _ROWS // 2, rng.choice((3, 4, 4, 5, 6, 6, 8, 8, 12)))
    frames = rng.choice((1, 4, 4, 5, 6, 7, 8, 8, 8, 10, 12, 16))
    return clip_batch(rng, tokenizer, _ROWS if frames <= 8 else _ROWS // 2, frames, _SCENES)


def answer_loss(
    model: LlavaForConditionalGeneration, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the mean loss of the answers' tokens, their logits, and their places, bool[B, N - 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(**batch.inputs).last_hidden_state
        wanted = batch.labels[:, 1:]
        where = wanted != IGNORED
        logits = model.lm_head(hidden[:, :-1][where]).float()
    return functional.cross_entropy(logits, wanted[where]), logits, where


@torch.no_grad()
def accuracy(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, batches: int = 2
) -> dict[str, float]:
    """Returns the share of right answers per kind, on clips that training never draws, at 8 frames."""
    model.eval()
    rng = random.Random(_HELD_OUT_SEED)
    right: dict[str, list[bool]] = defaultdict(list)
    held_out = [clip_batch(rng, processor.tokenizer, _ROWS, 8, _SCENES) for _ in range(batches)]
    held_out.append(pair_batch(rng, processor.tokenizer, _ROWS, 6))
    for batch in held_out:
        _, logits, where = answer_loss(model, batch)
        said = torch.full_like(batch.labels, IGNORED)
        said[:, 1:][where] = logits.argmax(-1)
        for branch in batch.branches:
            span = (branch.row, slice(branch.start, branch.stop))
            right[branch.kind].append(bool((said[span] == batch.labels[span]).all()))
    model.train()
    return {kind: sum(hits) / len(hits) for kind, hits in sorted(right.items())}


def format_shares(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.2f}" for name, value in values.items())


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def parse(arguments: list[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--decay-from", type=float, default=0.4)
    parser.add_argument("--pair-share", type=float, default=0.25)
    return Plan(**vars(parser.parse_args(arguments)))


def restart_with_malloc_settings() -> None:
    """Starts this script again with the malloc settings, which glibc reads once, at its start."""
    if any(os.environ.get(name) != value for name, value in _MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_MALLOC})  # noqa: S606


def main() -> None:
    """Warms up, learns and saves."""
    plan = parse()
    restart_with_malloc_settings()
    torch.set_num_threads(1)
    training = Training(plan)
    say(training.describe())
    with stopped_by_signals() as stop:
        finished = training.run(stop)
    taken = f"{training.state.hours:.1f} hours in {training.state.sittings} sittings"
    if not finished:
        say(f"stopped after {taken}; the same command goes on")
        raise SystemExit(1)
    training.state.delete()
    say(f"done after {taken}")


if __name__ == "__main__":
    main()
