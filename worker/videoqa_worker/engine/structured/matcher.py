"""Compiled grammars, and the matcher that follows one sequence through its grammar."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from videoqa.contract import AnswerForm, ChoiceAnswer
from videoqa.errors import AnswerNotServed
from videoqa_worker.engine.structured.grammar import write_grammar
from videoqa_worker.engine.structured.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

__all__ = ["Grammar", "GrammarCompiler", "Matcher", "count_words", "make_unwritable"]

MOST_GRAMMARS = 64
"""Compiled grammars that are kept; one has some MB at most."""


def make_limits() -> LLParserLimits:
    """Returns the most that one grammar may cost; the library's own are for trusted grammars."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=50_000,
        step_lexer_fuel=100_000,
        step_max_items=200_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )


def count_words(width: int) -> int:
    """Returns the number of 32-bit words of a mask for so many logits."""
    return (width + 31) // 32


class Grammar:
    """A compiled grammar; `start` follows another sequence through it. Thread-safe."""

    def __init__(self, matcher: LLMatcher, width: int) -> None:
        self._matcher, self._width = matcher, width
        self._lock = threading.Lock()

    def start(self) -> Matcher:
        """Returns a matcher at the beginning of an answer."""
        with self._lock:
            return Matcher(self._matcher.deep_copy(), self._width)


class Matcher:
    """The state of one answer in its grammar. For one thread at a time."""

    def __init__(self, matcher: LLMatcher, width: int) -> None:
        self.inner = matcher
        """For the executor of the library, which fills many masks at once."""
        self.width = width

    @property
    def is_complete(self) -> bool:
        """True once nothing can follow: the answer is whole."""
        return bool(self.inner.is_stopped()) and not self.inner.is_error()

    def consume(self, token: int) -> None:
        """Takes a token that the mask allowed.

        Raises:
            AnswerNotServed: following the grammar exceeded its limits.
        """
        if not self.inner.consume_token(token):
            raise _refuse(self.inner.get_error())

    def fill(self, row: np.ndarray) -> None:
        """Writes the mask of the next token into int32[words]; a bit is set for each token that may follow."""
        self.inner.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)


class GrammarCompiler:
    """Compiles the forms of answers for one model, on the callers' threads. Thread-safe."""

    def __init__(self, tokenizer: Any, ends: Sequence[int], width: int) -> None:
        """
        Arguments:
            ends: tokens that end an answer.
            width: number of logits.
        """
        self._tokenizer, self._ends, self._width = tokenizer, ends, width
        self._vocabulary: Any = None
        self._unserved: AnswerNotServed | None = None
        """Reason why no form is served; None: none, or the vocabulary is not read yet."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Grammar] = OrderedDict()

    def read(self) -> None:
        """Reads the vocabulary, which holds Python's lock for a second where it has 150,000 tokens."""
        with self._lock:
            self._read()

    def _read(self) -> None:
        if self._vocabulary is not None or self._unserved is not None:
            return
        try:
            self._vocabulary = read_vocabulary(self._tokenizer, self._ends, self._width)
        except AnswerNotServed as error:
            self._unserved = error
        except BaseException as error:
            # Whatever a foreign tokenizer leads to: free text needs no grammar, so the model serves it all the same.
            # A panic of the library is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self._unserved = _refuse(f"{type(error).__name__}: {error}")

    def make(self, form: AnswerForm) -> Grammar:
        """Returns the grammar of a form, compiled or from an earlier request.

        Raises:
            AnswerNotServed: the form contradicts itself, costs too much, or needs characters that no token has.
        """
        key = form.model_dump_json()
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
            self._read()
            if self._unserved is not None:
                raise AnswerNotServed(self._unserved.message)
        grammar = self._make(form)
        with self._lock:
            self._kept[key] = grammar
            while len(self._kept) > MOST_GRAMMARS:
                self._kept.popitem(last=False)
        return grammar

    def _make(self, form: AnswerForm) -> Grammar:
        from llguidance import LLMatcher

        if isinstance(form, ChoiceAnswer):
            self._check_choices(form)
        matcher = LLMatcher(
            self._vocabulary, write_grammar(form), log_level=0, limits=make_limits()
        )
        width = int(self._vocabulary.vocab_size)
        mask = np.zeros(count_words(width), np.int32)
        if not matcher.is_error():
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if matcher.is_error():
            raise _refuse(matcher.get_error())
        bits = np.unpackbits(mask.view(np.uint8), count=self._width, bitorder="little")
        bits[[*self._ends]] = 0  # what the library sets where nothing else can follow
        if not bits.any() and not matcher.is_accepting():
            raise make_unwritable("an answer of this form")
        return Grammar(matcher, width)

    def _check_choices(self, form: ChoiceAnswer) -> None:
        """Refuses a choice that the model cannot write: it would never be chosen, and nobody would know."""
        for choice in form.choices:
            for text in (choice, f" {choice}"):
                tokens = self._vocabulary.tokenize_str(text)
                known = all(token < self._width for token in tokens)
                if known and self._vocabulary.decode_str(tokens) == text:
                    break
            else:
                raise make_unwritable(f"the choice {choice!r:.100}")


def make_unwritable(what: str) -> AnswerNotServed:
    """Returns the error for text that the model has no tokens for."""
    return AnswerNotServed(
        f"the model's vocabulary has no tokens to write {what}; ask for another form, or another model"
    )


def _refuse(reason: str) -> AnswerNotServed:
    lines = [line for line in reason.splitlines() if line.strip() and "non-verbose" not in line]
    return AnswerNotServed(
        f"the form of the answer cannot be served: {' '.join(lines) or 'it is too complex':.500}; simplify the schema "
        "or pattern"
    )
