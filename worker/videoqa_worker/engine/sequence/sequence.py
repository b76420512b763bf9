"""A running sequence: its tokens so far, and how it ended."""

from __future__ import annotations

import time
from typing import Any

from videoqa.contract import FinishReason
from videoqa.errors import AnswerNotServed
from videoqa_worker.engine.generation import Generated, PendingRequest
from videoqa_worker.engine.kvcache.positions import DecodeInput
from videoqa_worker.engine.kvcache.slots import Slot, SlotRegion
from videoqa_worker.engine.model.checkpoint.generation_config import CheckpointGeneration
from videoqa_worker.engine.sequence.detokenizer import Detokenizer, count_held_back
from videoqa_worker.engine.sequence.logits import LogitsProcessors
from videoqa_worker.engine.sequence.prefill import Prefill
from videoqa_worker.engine.sequence.sampler import Sampler

__all__ = ["Sequence", "SlotSequence"]


class Sequence:
    """One request in generation, under its own limit, end tokens, stop strings and cancellation."""

    def __init__(
        self, pending: PendingRequest, tokenizer: Any, checkpoint: CheckpointGeneration
    ) -> None:
        self.pending = pending
        self.generation = pending.request.generation
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self._text = ""
        self._first_token_s = 0.0
        streams = pending.request.on_text is not None
        self._detokenizer = Detokenizer(tokenizer) if streams else None
        self._tokenizer = tokenizer
        self._eos = checkpoint.eos
        grammar = pending.request.grammar
        self.matcher = grammar.start() if grammar is not None else None
        """Position of the answer in its grammar; None: it is free text."""
        self._stops = (*self.generation.stop, *checkpoint.stop_strings)
        if self.matcher is not None:  # its grammar ends it; a stop string would leave it in pieces
            self._stops = ()
        specials = tokenizer.all_special_tokens if self._stops else []
        self._specials = [one for one in specials if any(one in stop for stop in self._stops)]
        """Special tokens in stop strings; the text that is searched has them only then."""
        # A character is at most 4 tokens (bytes); 8 more cover the token that straddles the start.
        self._tail = max((len(stop) for stop in self._stops), default=0) * 4 + 8

    @property
    def is_finished(self) -> bool:
        """True once it has a finish reason or an error."""
        return self.finish_reason is not None or self.error is not None

    def append_token(self, token: int) -> None:
        """Adds a token; finishes the sequence if it was the last one, or if the caller withdrew."""
        if not self.tokens:
            self._first_token_s = time.monotonic() - self.pending.arrived_s
        self.tokens.append(token)
        if self._follow_grammar(token) or token in self._eos:
            self.finish_reason = "stop"
        elif self._match_stop_string():
            self.finish_reason = "stop_string"
        elif len(self.tokens) >= self.generation.max_new_tokens:
            self.finish_reason = "length"
        self.poll_caller()
        if self._detokenizer is not None and self.error is None:
            self._stream(self._detokenizer.add(token))

    def _follow_grammar(self, token: int) -> bool:
        """Returns True if the answer is whole by its grammar; fails the sequence if following that costs too much."""
        if self.matcher is None:
            return False
        try:
            self.matcher.consume(token)
        except AnswerNotServed as error:
            self.error = error
        return self.matcher.is_complete

    def poll_caller(self) -> None:
        """Asks the caller whether to go on, and reports progress to it."""
        if self.finish_reason is None and (error := self.pending.find_withdrawal()) is not None:
            self.error = error
            return
        on_progress = self.pending.request.on_progress
        try:
            if on_progress is not None and self.tokens:
                on_progress(len(self.tokens))
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            self.error = error

    def build_answer(self) -> Generated:
        """Returns the finished answer."""
        text = self._text if self.finish_reason == "stop_string" else self._decode(self.tokens)
        return Generated(
            text=text.strip(),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "stop",
            input_tokens=self.pending.prompt_tokens,
            output_tokens=len(self.tokens),
            first_token_s=self._first_token_s,
            seconds=time.monotonic() - self.pending.arrived_s,
        )

    def _stream(self, text: str) -> None:
        """Passes on new text; holds back what may become a stop string.

        Arguments:
            text: the whole answer so far.
        """
        if self.finish_reason is not None:
            text = self._text if self.finish_reason == "stop_string" else self._decode(self.tokens)
        else:
            text = text[: len(text) - count_held_back(text, self._stops)]
        new = text[self.pending.streamed :]
        if not new or self.pending.request.on_text is None:
            return
        self.pending.streamed = len(text)
        try:
            self.pending.request.on_text(new)
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            self.error = error

    def _match_stop_string(self) -> bool:
        """Returns True if the text has a stop string; most steps look at the last tokens only."""
        stops = self._stops
        if not stops:
            return False
        shows = bool(self._specials)
        tail = self._decode(self.tokens[-self._tail :], shows_specials=shows)
        if not any(stop in tail for stop in stops):
            return False
        text = self._decode(self.tokens, shows_specials=shows)
        ends = [text.index(stop) for stop in stops if stop in text]
        if ends:
            self._text = text[: min(ends)]
            for special in self._tokenizer.all_special_tokens if shows else ():
                self._text = self._text.replace(special, "")
        return bool(ends)

    def _decode(self, tokens: list[int], *, shows_specials: bool = False) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not shows_specials))


class SlotSequence(Sequence):
    """A sequence whose KV lies in a slot."""

    def __init__(
        self,
        pending: PendingRequest,
        tokenizer: Any,
        checkpoint: CheckpointGeneration,
        region: SlotRegion[SlotSequence],
    ) -> None:
        super().__init__(pending, tokenizer, checkpoint)
        self.region = region
        self.prefill: Prefill | None = Prefill(pending.prompt_tokens)
        """None once the prompt is complete."""
        self.rotary_delta = 0
        """Rotary position of an answer's token, less its index."""
        self.is_prepared = False
        """True once it has what it needs on the device."""
        self.length = 0
        """Positions of prompt and answer whose KV is written, the shared prefix included."""
        self.sampler: Sampler | None = None
        self.logits_processors: LogitsProcessors | None = None

    @property
    def slot(self) -> Slot[SlotSequence]:
        """The slot of its region."""
        return self.region.slot

    @property
    def write_position(self) -> int:
        """Position in the slot that it writes next."""
        return self.region.start + self.length - self.region.slot.prefix_length

    @property
    def decode_input(self) -> DecodeInput:
        """Input of its next decode step."""
        region = self.region
        return DecodeInput(
            self.tokens[-1],
            self.write_position,
            region.start,
            region.slot.prefix_length,
            self.length + self.rotary_delta,
        )

    def append_token(self, token: int) -> None:
        """Adds a token to its answer."""
        if self.logits_processors is not None:
            self.logits_processors.add(token)
        super().append_token(token)

    def undo_draw(self) -> None:
        """Takes back the draw of a lost step, which is repeated with the same random numbers."""
        if self.sampler is not None and self.sampler.draws > len(self.tokens):
            self.sampler.undo()
