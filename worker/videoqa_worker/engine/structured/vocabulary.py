"""The vocabulary of a model's tokenizer, as llguidance takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from videoqa.errors import AnswerNotServed

__all__ = ["read_vocabulary"]

_ATTACHED = (".", "?", "!", ",")
"""Marks before which a WordPiece decoder that cleans up writes no space."""
_AMBIGUOUS = "'"
"""A mark that it writes with or without spaces around it, as its neighbours are."""


def read_vocabulary(tokenizer: Any, ends: Sequence[int], width: int) -> Any:
    """Returns the `LLTokenizer` of a tokenizer; takes about a second for 150,000 tokens.

    Arguments:
        ends: tokens that end an answer.
        width: number of logits, of which the last may stand for no token.

    Raises:
        AnswerNotServed: the library does not know this kind of tokenizer, or is not installed.
    """
    try:
        from llguidance import LLTokenizer
    except ImportError as error:
        raise AnswerNotServed(
            f"structured answers need llguidance, which cannot be imported: {error}; install it beside the worker"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refuse(type(tokenizer).__name__)
    if type(backend.decoder).__name__ == "WordPiece":
        words: Any = _WordPieces(tokenizer, ends[0], width)
        return LLTokenizer(words, n_vocab=len(words.tokens), eos_token=[*ends])
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=width, eos_token=[*ends])
    except ValueError as error:
        raise _refuse(str(error)) from error


def _refuse(reason: str) -> AnswerNotServed:
    return AnswerNotServed(
        f"the model's tokenizer is of no kind that structured answers work with: {reason:.300}; ask for free text, or "
        "another model"
    )


class _WordPieces:
    """A tokenizer of whole words, with the bytes that each token adds to a text.

    The library takes for granted that each byte has a token: a space that every continuation begins with would else
    be followed by nothing. Bytes without one get a token behind the last logit, which no answer can have.
    """

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Any, end: int, width: int) -> None:
        self.eos_token_id, self.bos_token_id = end, tokenizer.bos_token_id
        specials = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
        words = tokenizer.get_vocab()
        specials |= {number for word, number in words.items() if word == _AMBIGUOUS}
        self.special_token_ids = sorted(one for one in specials if one is not None)
        prefix = tokenizer.backend_tokenizer.decoder.prefix
        self.tokens = [b""] * max(width, max(words.values()) + 1)
        for word, number in words.items():
            self.tokens[number] = _spell(word, prefix).encode()
        single = (bytes([one]) for one in range(256))
        self.tokens += [one for one in single if one not in self.tokens]
        self._by_bytes = {
            text: number
            for number, text in enumerate(self.tokens)
            if text and number not in self.special_token_ids
        }
        self._longest = max(map(len, self._by_bytes), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        """Returns the tokens whose bytes are the text, the longest first; stops where there is none.

        The library asks for tokens of forced text, spaces included, for which the tokenizer itself has none.
        """
        left, found = text.encode() if isinstance(text, str) else text, []
        while left:
            sizes = range(min(self._longest, len(left)), 0, -1)
            size = next((size for size in sizes if left[:size] in self._by_bytes), 0)
            if not size:
                break
            found.append(self._by_bytes[left[:size]])
            left = left[size:]
        return found


def _spell(word: str, prefix: str) -> str:
    if word.startswith(prefix):
        return word.removeprefix(prefix)
    return word if word in _ATTACHED else f" {word}"
