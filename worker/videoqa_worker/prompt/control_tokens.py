"""Neutralises control tokens that a user typed.

A tokenizer turns the text `<|im_end|>` into the control token wherever it stands, so a
question could close its own turn and speak as the assistant. Here such text is broken by
one space after its first character (`< |im_end|>`): it stays readable, and its token ids
are those of ordinary text. A space and not a zero-width joiner, because every vocabulary
has a space. Knows nothing about media marks, chat formats or models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["ControlTokens", "neutralise_likely_tokens"]

_LIKELY = re.compile(r"<[|/]?[A-Za-z_][\w ./:-]*\|?>|\[/?[A-Z][A-Z_]*\]")
"""Matches `<image>`, `</s>`, `<|im_end|>`, `<start_of_turn>`, `[INST]`."""
ROUNDS = 4
"""Breaking a token can uncover another only inside nested ones; two rounds were the most seen."""


class ControlTokens:
    """The control tokens of one tokenizer.

    Every added token counts, special or not: chat formats are written with both. Tokens
    of whitespace only don't (Gemma adds a newline): templates and users type them as text.
    """

    def __init__(self, tokenizer: Any, more: Iterable[str] = ()) -> None:
        added = {id_: str(token) for id_, token in tokenizer.added_tokens_decoder.items()}
        special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        found = {id_: text for id_, text in (added | dict(special)).items() if text.strip()}
        self._tokenizer = tokenizer
        # Text outside the vocabulary becomes the unknown token by itself: no sign of an attack.
        self.ids = frozenset(found) - {tokenizer.unk_token_id}
        longest_first = sorted({*found.values(), *more}, key=len, reverse=True)
        self._literal = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def neutralise(self, text: str) -> str:
        """Returns the text, changed only where it holds control tokens."""
        for _ in range(ROUNDS):
            text = self._literal.sub(lambda found: _break(found[0]), text)
            spans = self._find_tokens(text)
            if not spans:
                return text
            for start, end in reversed(spans):
                text = text[:start] + _break(text[start:end]) + text[end:]
        for start, end in reversed(self._find_tokens(text)):
            text = text[:start] + " " + text[end:]
        return text

    def _find_tokens(self, text: str) -> list[tuple[int, int]]:
        """Returns spans that the tokenizer itself takes for control tokens: it may normalise letters first."""
        if not self._tokenizer.is_fast:
            return []
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [tuple(span) for id_, span in pairs if id_ in self.ids]


def neutralise_likely_tokens(text: str) -> str:
    """Breaks everything that looks like a control token, for a tokenizer that is not known."""
    return _LIKELY.sub(lambda found: _break(found[0]), text)


def _break(token: str) -> str:
    """Returns `<image>` as `< image>`; a token of one character becomes a space."""
    left = len(token) - len(token.lstrip())
    if len(token.strip()) < 2:
        return " "
    return f"{token[: left + 1]} {token[left + 1 :]}"
