"""Each row of a batch under its own settings: limit, end, stop strings, sampling, stopping.

`generate` runs greedily for all rows. A row that samples draws its token here, with its
own generator, and leaves that token as the only one possible; a row that is done is
reported done, while its neighbours go on. Nothing here knows how rows are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from videoqa.errors import JobCanceled
from videoqa.job import FinishReason
from videoqa_worker.engine.request import Generated, Ticket
from videoqa_worker.engine.sampling import Sampler

__all__ = ["Row", "Sampling", "Taking"]


class Row:
    """One running request: its tokens so far, and how it ended."""

    def __init__(self, ticket: Ticket, tokenizer: Any, eos: frozenset[int]) -> None:
        self.ticket = ticket
        self.generation = ticket.request.generation
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self._text = ""
        self._tokenizer = tokenizer
        self._eos = eos
        # A character is at most 4 tokens (bytes); 8 more cover the token that straddles the start.
        self._tail = max((len(stop) for stop in self.generation.stop), default=0) * 4 + 8

    @property
    def done(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    def take(self, token: int) -> None:
        """Adds a token; ends the row if that was its last, or if its caller lost interest."""
        self.tokens.append(token)
        if token in self._eos:
            self.finish_reason = "stop"
        elif self._stopped():
            self.finish_reason = "stop_string"
        elif len(self.tokens) >= self.generation.max_new_tokens:
            self.finish_reason = "length"
        self.poll()

    def poll(self) -> None:
        """Asks the caller whether to go on, and tells it how far the row is."""
        request = self.ticket.request
        try:
            if self.finish_reason is None and request.should_stop():
                self.error = JobCanceled("the answer was stopped before it was complete")
            elif request.on_progress is not None and self.tokens:
                request.on_progress(len(self.tokens))
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            self.error = error

    def generated(self) -> Generated:
        """The finished answer."""
        text = self._text if self.finish_reason == "stop_string" else self._decode(self.tokens)
        return Generated(
            text=text.strip(),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "stop",
            input_tokens=self.ticket.prompt_tokens,
            output_tokens=len(self.tokens),
        )

    def _stopped(self) -> bool:
        """Whether a stop string is in the text; most steps look at the last tokens only."""
        stops = self.generation.stop
        if not stops:
            return False
        tail = self._decode(self.tokens[-self._tail :])
        if not any(stop in tail for stop in stops):
            return False
        text = self._decode(self.tokens)
        ends = [text.index(stop) for stop in stops if stop in text]
        if ends:
            self._text = text[: min(ends)]
        return bool(ends)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class Sampling(LogitsProcessor):
    """Leaves a sampling row one token to choose: the one drawn for it."""

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self._rows = rows
        self._samplers = {
            n: Sampler(row.generation, device)
            for n, row in enumerate(rows)
            if row.generation.temperature > 0
        }

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: float32[rows, vocabulary]."""
        for n, sampler in self._samplers.items():
            if not self._rows[n].done:
                token = sampler.draw(scores[n])
                scores[n] = -torch.inf
                scores[n, token] = 0.0
        return scores


class Taking(StoppingCriteria):
    """Gives each row its new token and says which rows are done."""

    def __init__(self, rows: Sequence[Row], after: Callable[[Row], None]) -> None:
        self._rows = rows
        self._after = after

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """bool[rows]."""
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            if not row.done:
                row.take(token)
                self._after(row)
        return torch.tensor([row.done for row in self._rows], device=input_ids.device)
