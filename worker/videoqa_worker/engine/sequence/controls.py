"""Each row of a batch under its own settings: limit, end, stop strings, sampling, stopping.

`generate` runs greedily for all rows. A row that samples draws its token here, with its
own generator, and leaves that token as the only one possible; a row that is done is
reported done, while its neighbours go on. Nothing here knows how rows are batched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from videoqa.contract import FinishReason
from videoqa.errors import ModelError
from videoqa_worker.engine.failures import NO_NUMBERS
from videoqa_worker.engine.request import Generated, PendingRequest
from videoqa_worker.engine.sequence.detokenizer import may_become
from videoqa_worker.engine.sequence.sampler import Sampler

__all__ = ["Row", "Sampling", "Taking"]


class Row:
    """One running request: its tokens so far, and how it ended."""

    def __init__(self, ticket: PendingRequest, tokenizer: Any, eos: frozenset[int]) -> None:
        self.ticket = ticket
        self.generation = ticket.request.generation
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self._text = ""
        self._first_token_s = 0.0
        self._words = Words(tokenizer) if ticket.request.on_text is not None else None
        self._tokenizer = tokenizer
        self._eos = eos
        # A character is at most 4 tokens (bytes); 8 more cover the token that straddles the start.
        self._tail = max((len(stop) for stop in self.generation.stop), default=0) * 4 + 8

    @property
    def done(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    def take(self, token: int) -> None:
        """Adds a token; ends the row if that was its last, or if its caller lost interest."""
        if not self.tokens:
            self._first_token_s = time.monotonic() - self.ticket.arrived_s
        self.tokens.append(token)
        if token in self._eos:
            self.finish_reason = "stop"
        elif self._stopped():
            self.finish_reason = "stop_string"
        elif len(self.tokens) >= self.generation.max_new_tokens:
            self.finish_reason = "length"
        self.poll()
        if self._words is not None and self.error is None:
            self._tell(self._words.add(token))

    def poll(self) -> None:
        """Asks the caller whether to go on, and tells it how far the row is."""
        if self.finish_reason is None and (error := self.ticket.withdrawal()) is not None:
            self.error = error
            return
        told = self.ticket.request.on_progress
        try:
            if told is not None and self.tokens:
                told(len(self.tokens))
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
            first_token_s=self._first_token_s,
        )

    def _tell(self, text: str) -> None:
        """`text`: all of the answer so far. What may become a stop string is held back."""
        if self.finish_reason is not None:
            text = self._text if self.finish_reason == "stop_string" else self._decode(self.tokens)
        else:
            text = text[: len(text) - may_become(text, self.generation.stop)]
        new = text[self.ticket.said :]
        if not new or self.ticket.request.on_text is None:
            return
        self.ticket.said = len(text)
        try:
            self.ticket.request.on_text(new)
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            self.error = error

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


class Words:
    """The text of a growing answer, in whole characters, by decoding only what is new.

    Tokens are decoded together with a few before them, since what a token says can depend on
    them (spaces, bytes of one character).
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._text = ""
        self._before = self._sure = 0
        """Tokens whose text is complete, and where decoding starts to know what comes after."""

    def add(self, token: int) -> str:
        """All that is sure by now."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._before : self._sure])
        more = self._decode(self._tokens[self._before :])
        if len(more) > len(known) and not more.endswith("\ufffd"):
            self._text += more[len(known) :]
            self._before, self._sure = self._sure, len(self._tokens)
        return self._text

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class Sampling(LogitsProcessor):
    """Leaves a sampling row one token to choose: the one drawn for it. A row whose scores are no numbers
    has no token, and fails."""

    def __init__(
        self, rows: Sequence[Row], device: torch.device, after: Callable[[Row], None]
    ) -> None:
        self._rows = rows
        self._after = after
        self._samplers = {
            n: Sampler(row.generation, row.ticket.seed, device)
            for n, row in enumerate(rows)
            if row.generation.temperature > 0
        }

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: float32[rows, vocabulary]; minus infinity is what others forbade."""
        sound = (scores < torch.inf).all(dim=-1).tolist()
        for row, numbers in zip(self._rows, sound, strict=True):
            if not numbers and not row.done:
                row.error = ModelError(NO_NUMBERS)
                self._after(row)
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
