"""Runs of placeholders are tokenized as one, and the same token ids come out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import tiny_tokenizer
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from videoqa_worker.prompt import collapse_runs

TOKENS = ("<image>", "<video>")


def stripping() -> PreTrainedTokenizerFast:
    """Its placeholders swallow the spaces beside them."""
    tokenizer = tiny_tokenizer(bos=True)
    wide = AddedToken("<wide>", special=True, lstrip=True, rstrip=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [wide]})
    return tokenizer


def normalising() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(bos=False)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(" "), normalizers.Lowercase()])
    return tokenizer


def prefixing() -> PreTrainedTokenizerFast:
    """A space before the first word and before each that follows a token, as of LLaMA's."""
    tokenizer = tiny_tokenizer(bos=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def overlapping() -> PreTrainedTokenizerFast:
    """One placeholder begins like the other."""
    tokenizer = tiny_tokenizer(bos=True)
    tokenizer.add_tokens([AddedToken("<image>a", special=True)], special_tokens=True)
    return tokenizer


KINDS = {
    "plain": (lambda: tiny_tokenizer(bos=False), TOKENS),
    "bos": (lambda: tiny_tokenizer(bos=True), TOKENS),
    "stripping": (stripping, (*TOKENS, "<wide>")),
    "normalising": (normalising, TOKENS),
    "prefixing": (prefixing, TOKENS),
    "overlapping": (overlapping, ("<image>", "<image>a")),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """A tokenizer, the one that collapses runs, and the placeholders."""
    make, tokens = KINDS[request.param]
    own = make()
    return own, collapse_runs(own, tokens), tokens


def coded(tokenizer: Any, text: str, *, begins: bool) -> dict[str, Any]:
    found = tokenizer([text], return_tensors="pt", add_special_tokens=begins)
    assert {str(value.dtype) for value in found.values()} == {"torch.int64"}
    return {name: value.tolist() for name, value in found.items()}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), begins=st.booleans())
def test_no_token_id_changes(
    pair: tuple[Any, Any, tuple[str, ...]], data: st.DataObject, begins: bool
) -> None:
    own, collapsing, tokens = pair
    run = st.tuples(st.sampled_from(tokens), st.integers(1, 9)).map(lambda one: one[0] * one[1])
    words = st.text("aé <>\nimage|", max_size=6)
    text = "".join(data.draw(st.lists(st.one_of(run, words), max_size=6)))
    assert coded(collapsing, text, begins=begins) == coded(own, text, begins=begins)


def test_what_is_asked_for_otherwise_goes_to_the_tokenizer_itself(
    pair: tuple[Any, Any, tuple[str, ...]],
) -> None:
    own, collapsing, _ = pair
    text = "a<image><image> b"
    assert collapsing(text)["input_ids"] == own(text)["input_ids"]
    offsets = collapsing(text, return_offsets_mapping=True)["offset_mapping"]
    assert offsets == own(text, return_offsets_mapping=True)["offset_mapping"]
    both = {"text": [text, "b"], "padding": True, "return_tensors": "pt"}
    own.pad_token = "<image>"
    assert collapsing(**both)["input_ids"].tolist() == own(**both)["input_ids"].tolist()


def test_only_the_runs_are_shorter_for_the_tokenizer() -> None:
    seen: list[str] = []
    own = tiny_tokenizer(bos=False)

    class Spy:
        def __call__(self, text: Any, *args: Any, **settings: Any) -> Any:
            seen.append(text[0] if isinstance(text, list) else text)
            return own(text, *args, **settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(own, name)

    tokenizer = collapse_runs(Spy(), TOKENS)
    seen.clear()
    found = coded(tokenizer, f"a{'<image>' * 729}\n{'<image>' * 729} b<video>", begins=False)
    assert seen == ["a<image>\n<image> b<video>"]
    assert found == coded(own, f"a{'<image>' * 729}\n{'<image>' * 729} b<video>", begins=False)


def test_a_placeholder_that_is_no_token_of_its_own_is_left_alone() -> None:
    tokenizer = tiny_tokenizer(bos=False)
    whole = AddedToken("#", special=True, single_word=True)
    changed = AddedToken("%", special=True, normalized=True)
    tokenizer.add_tokens([whole, changed], special_tokens=True)
    for token in ("<picture>", "a", "#", "%"):
        assert collapse_runs(tokenizer, [token]) is tokenizer, token


def test_a_tokenizer_that_does_not_tell_its_added_tokens_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tokenizer that tells no added tokens, as Mistral's own backend."""

    def untold(_: Any) -> Any:
        raise NotImplementedError

    tokenizer = tiny_tokenizer(bos=False)
    kind = type(tokenizer)
    monkeypatch.setattr(kind, "added_tokens_decoder", property(untold))
    assert collapse_runs(tokenizer, TOKENS) is tokenizer
