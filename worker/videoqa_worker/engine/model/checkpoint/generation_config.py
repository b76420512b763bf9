"""A checkpoint's generation settings: read, sorted by use, and checked before its weights are loaded.

`generate` of transformers fills what a call leaves open from the checkpoint's `generation_config.json`. `FIELDS`
puts each field in one of four uses: honoured as in `generate`, given by requests, without effect here, or
refused at the start. A test fails when transformers has a field that is not in it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import GenerationConfig
from transformers.utils.hub import cached_file

from videoqa.errors import ConfigurationError
from videoqa_worker import log_events

__all__ = ["FIELDS", "CheckpointGeneration", "FieldUse", "adopt", "read_generation_config"]

log = logging.getLogger(__name__)

_FILE, _MODEL_FILE = "generation_config.json", "config.json"


class FieldUse(NamedTuple):
    """The use of one field of a checkpoint's generation settings."""

    use: Literal["honoured", "request", "no effect", "refused"]
    why: str
    neutral: tuple[Any, ...] = (None,)
    """Values that change nothing."""


def _honour(why: str, *neutral: Any) -> FieldUse:
    return FieldUse("honoured", why, (None, *neutral))


def _ask(why: str, *neutral: Any) -> FieldUse:
    return FieldUse("request", why, (None, *neutral))


def _ignore(why: str) -> FieldUse:
    return FieldUse("no effect", why)


def _refuse(why: str, *neutral: Any) -> FieldUse:
    return FieldUse("refused", why, (None, *neutral))


_SAMPLING = "sampling is the request's: an answer is greedy unless it gives a temperature"
_LENGTH = "the request's `max_new_tokens` is the limit"
_BEAMS = "only beam search reads it, and `num_beams` above 1 is refused"
_DRAFTS = "drafting changes the speed, not the tokens"
_MEMORY = "it changes speed and memory, not the tokens: the worker has a KV cache of its own"
_OUTPUT = "it asks for more than tokens"
_ENCODER = "only encoder-decoder models begin with it, and theirs is taken over"

FIELDS: Mapping[str, FieldUse] = {
    # Honoured, in the order in which transformers applies them
    "sequence_bias": _honour("added to the logits of sequences of tokens"),
    "encoder_repetition_penalty": _honour("favours tokens of the prompt", 1),
    "repetition_penalty": _honour("a request's own takes its place", 1),
    "no_repeat_ngram_size": _honour("over prompt and answer", 0),
    "encoder_no_repeat_ngram_size": _honour("of the prompt", 0),
    "bad_words_ids": _honour("never written"),
    "min_length": _honour("prompt and answer together; `min_new_tokens` takes its place", 0),
    "min_new_tokens": _honour("no end before", 0),
    "forced_bos_token_id": _honour(
        "only a prompt of one token, as of encoder-decoder models, has it"
    ),
    "forced_eos_token_id": _honour("the last token that `max_new_tokens` allows"),
    "exponential_decay_length_penalty": _honour("favours the end of a long answer"),
    "suppress_tokens": _honour("never written"),
    "begin_suppress_tokens": _honour("not written first"),
    "watermarking_config": _honour("before the temperature where a request samples"),
    "renormalize_logits": _honour("as the last step", False),
    "stop_strings": _honour("as if each request had them in its `stop`"),
    "eos_token_id": _honour("the tokenizer's, if there is none"),
    "pad_token_id": _honour("behind an attention mask, where prompts are padded"),
    "bos_token_id": _honour(_ENCODER),
    "decoder_start_token_id": _honour(_ENCODER),
    # Given by requests
    "do_sample": _ask(_SAMPLING, False),
    "temperature": _ask(_SAMPLING, 1),
    "top_k": _ask(_SAMPLING, 50),
    "top_p": _ask(_SAMPLING, 1),
    "min_p": _ask(_SAMPLING, 0),
    "top_h": _ask(_SAMPLING),
    "typical_p": _ask(_SAMPLING, 1),
    "epsilon_cutoff": _ask(_SAMPLING, 0),
    "eta_cutoff": _ask(_SAMPLING, 0),
    "max_length": FieldUse("request", _LENGTH),
    "max_new_tokens": FieldUse("request", _LENGTH),
    # Refused
    "num_beams": _refuse("beam search", 1),
    "constraints": _refuse("constrained beam search"),
    "force_words_ids": _refuse("constrained beam search"),
    "penalty_alpha": _refuse("contrastive search", 0),
    "dola_layers": _refuse("DoLa decoding"),
    "guidance_scale": _refuse("classifier-free guidance, a second pass without the prompt", 1),
    "token_healing": _refuse("a rewritten end of the prompt", False),
    "is_assistant": _refuse("a draft model, which ends where it is unsure", False),
    "num_return_sequences": _refuse("several answers to a question", 1),
    "max_time": _refuse("an answer cut off by the clock; a request has `timeout_s`"),
    # Without effect
    "remove_invalid_values": _ignore("NaN or infinite logits end a question with `nan_logits`"),
    "early_stopping": _ignore(_BEAMS),
    "length_penalty": _ignore(_BEAMS),
    "num_beam_groups": _ignore(_BEAMS),
    "diversity_penalty": _ignore(_BEAMS),
    "low_memory": _ignore(_BEAMS),
    "use_mtp": _ignore(_DRAFTS),
    "num_assistant_tokens": _ignore(_DRAFTS),
    "num_assistant_tokens_schedule": _ignore(_DRAFTS),
    "assistant_confidence_threshold": _ignore(_DRAFTS),
    "assistant_early_exit": _ignore(_DRAFTS),
    "assistant_lookbehind": _ignore(_DRAFTS),
    "assistant_ensemble_weight": _ignore(
        "only an assistant model, which no checkpoint has, reads it"
    ),
    "target_lookbehind": _ignore(_DRAFTS),
    "prompt_lookup_num_tokens": _ignore(_DRAFTS),
    "max_matching_ngram_size": _ignore(_DRAFTS),
    "speculation_type": _ignore(_DRAFTS),
    "use_cache": _ignore(_MEMORY),
    "cache_implementation": _ignore(_MEMORY),
    "cache_config": _ignore(_MEMORY),
    "max_cache_len": _ignore(_MEMORY),
    "prefill_chunk_size": _ignore(_MEMORY),
    "compile_config": _ignore(_MEMORY),
    "disable_compile": _ignore(_MEMORY),
    "continuous_batching_config": _ignore(_MEMORY),
    "output_attentions": _ignore(_OUTPUT),
    "output_hidden_states": _ignore(_OUTPUT),
    "output_scores": _ignore(_OUTPUT),
    "output_logits": _ignore(_OUTPUT),
    "return_dict_in_generate": _ignore(_OUTPUT),
    "transformers_version": _ignore("it tells who wrote the file"),
}
"""Uses of all fields of transformers' GenerationConfig."""

_TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
_LENIENT = ("suppress_tokens", "begin_suppress_tokens")
"""Lists in which transformers allows ids that the vocabulary lacks: nothing writes them anyway."""
_MOST_SHOWN = 500
"""Characters of a value in a result."""


@dataclass(frozen=True)
class CheckpointGeneration:
    """The generation settings of a checkpoint that are in force."""

    eos: frozenset[int] = frozenset()
    """Tokens that end an answer."""
    pad: int = 0
    stop_strings: tuple[str, ...] = ()
    shaping: Mapping[str, Any] = field(default_factory=dict)
    """Values that shape logits, by field."""
    begins: Mapping[str, Any] = field(default_factory=dict)
    """Tokens with which encoder-decoder models begin."""
    vocabulary: int | None = None
    """Tokens that the model can write; None: it is not known."""

    @property
    def ends(self) -> list[int]:
        """End tokens that the model can write, in order."""
        return [token for token in sorted(self.eos) if _is_within(token, self.vocabulary)]

    def describe(self) -> dict[str, Any]:
        """Returns what shapes answers, for results: JSON, and long values by their size."""
        found = dict(self.shaping)
        if self.stop_strings:
            found["stop_strings"] = list(self.stop_strings)
        return {name: _shorten(value) for name, value in found.items()}


def _shorten(value: Any) -> Any:
    plain = _make_plain(value.to_dict() if hasattr(value, "to_dict") else value)
    text = json.dumps(plain)
    return plain if len(text) <= _MOST_SHOWN else f"{len(plain)} values"


def _make_plain(value: Any) -> Any:
    """Returns a value as JSON has it; infinity, which JSON lacks and a bias may be, as text."""
    if isinstance(value, Mapping):
        return {str(key): _make_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_make_plain(each) for each in value]
    is_plain = value is None or isinstance(value, str | bool | int)
    is_plain = is_plain or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def read_generation_config(checkpoint: str, hub: Mapping[str, Any]) -> GenerationConfig:
    """Reads the generation settings of a checkpoint, as transformers does when it loads the model.

    Raises:
        ConfigurationError: they are damaged, or contradict themselves.
    """
    for name, read in (
        (_FILE, GenerationConfig.from_dict),
        (_MODEL_FILE, GenerationConfig.from_model_config),
    ):
        path = cached_file(
            checkpoint,
            name,
            revision=hub.get("revision"),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            continue
        try:
            return read(json.loads(Path(path).read_text("utf-8")))
        except Exception as error:  # transformers raises whatever a wrong type leads to
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigurationError(
                f"got a {name} of {checkpoint} that transformers refuses: {reason}; correct it in a copy of "
                "the checkpoint, or download it again",
                param="model",
            ) from error
    return GenerationConfig()  # type: ignore[no-untyped-call]


def adopt(
    own: GenerationConfig, checkpoint: str, model_config: Any, tokenizer: Any
) -> CheckpointGeneration:
    """Sorts a checkpoint's settings by their use.

    Raises:
        ConfigurationError: a setting that changes answers is none that this worker can honour.
    """
    given = {name: getattr(own, name, None) for name in FIELDS}
    given = {name: value for name, value in given.items() if value not in FIELDS[name].neutral}
    _check_refused(given, checkpoint)
    vocabulary = getattr(model_config.get_text_config(decoder=True), "vocab_size", None)
    _check_tokens(given, checkpoint, vocabulary)
    eos = _find_eos(given, checkpoint, tokenizer, vocabulary)
    shaping = {
        name: value
        for name, value in given.items()
        if FIELDS[name].use == "honoured" and name not in (*_TOKENS, "stop_strings")
    }
    found = CheckpointGeneration(
        eos=eos,
        pad=_find_pad(given, model_config, tokenizer, eos, vocabulary),
        stop_strings=_find_stop_strings(given, checkpoint),
        shaping=shaping,
        begins={
            name: given[name]
            for name in ("bos_token_id", "decoder_start_token_id")
            if name in given
        },
        vocabulary=vocabulary,
    )
    _log_findings(found, given, checkpoint)
    return found


def _log_findings(found: CheckpointGeneration, given: Mapping[str, Any], checkpoint: str) -> None:
    sampling = [f"{name}={given[name]}" for name in given if FIELDS[name].why == _SAMPLING]
    if sampling:
        log_events.SAMPLING_NOT_USED.log(log, name=checkpoint, found=", ".join(sampling))
    suppressed = set(found.shaping.get("suppress_tokens", ()))
    if not set(found.ends) - suppressed:
        log_events.NO_END_TOKEN.log(log, name=checkpoint)


def _check_refused(given: Mapping[str, Any], checkpoint: str) -> None:
    """Refuses settings by name that plain `generate` honours and this worker does not."""
    for name, value in given.items():
        if FIELDS[name].use == "refused" and _has_effect(name, given):
            raise _make_refusal(checkpoint, name, value, FIELDS[name].why)
    watermark = given.get("watermarking_config")
    if watermark is not None and type(watermark).__name__ != "WatermarkingConfig":
        raise _make_refusal(
            checkpoint, "watermarking_config", type(watermark).__name__, "a mark that has a state"
        )


def _has_effect(name: str, given: Mapping[str, Any]) -> bool:
    """Returns False for contrastive search where `generate` does not begin it."""
    if name != "penalty_alpha":
        return True
    return not given.get("do_sample") and given.get("top_k", 50) > 1


def _make_refusal(checkpoint: str, name: str, value: Any, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"got {name}={value!r:.200} in the generation settings of {checkpoint}, which ask for {why}, expected none: "
        "this worker does not do it, and without it the answers would be others; take the setting out of a "
        "copy of the checkpoint, or run the model on a server that honours it and set VIDEOQA_SERVER_URL",
        param="model",
    )


def _is_within(token: int, vocabulary: int | None) -> bool:
    return token >= 0 and (vocabulary is None or token < vocabulary)


def _list_tokens(value: Any) -> list[Any]:
    """Returns all token ids in a value, however deep they lie."""
    if isinstance(value, Mapping):
        return [token for key in value for token in _list_tokens(key)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [token for part in value for token in _list_tokens(part)]
    return [value]


def _check_tokens(given: Mapping[str, Any], checkpoint: str, vocabulary: int | None) -> None:
    """Refuses token ids that are none, or that the vocabulary lacks where the answer would need them."""
    tokens: dict[str, Iterable[Any]] = {
        name: _list_tokens(given[name])
        for name in (
            *_TOKENS, *_LENIENT, "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
        )
        if name in given
    }  # fmt: skip
    if "sequence_bias" in given:
        # JSON has pairs of tokens and a bias; other forms are refused with the processor.
        biases = given["sequence_bias"]
        listed = biases if isinstance(biases, list) else []
        pairs = [pair for pair in listed if isinstance(pair, list) and pair]
        tokens["sequence_bias"] = _list_tokens([pair[0] for pair in pairs])
    for name, ids in tokens.items():
        bounds = None if name in (*_TOKENS, *_LENIENT) else vocabulary
        for token in ids:
            if type(token) is not int or (not _is_within(token, bounds) and name not in _TOKENS):
                raise ConfigurationError(
                    f"got {name} with {token!r} in the generation settings of {checkpoint}, expected ids of tokens "
                    f"from 0 to {'its last' if vocabulary is None else vocabulary - 1}; correct it in a copy of "
                    "the checkpoint",
                    param="model",
                )


def _find_eos(
    given: Mapping[str, Any], checkpoint: str, tokenizer: Any, vocabulary: int | None
) -> frozenset[int]:
    """Returns the end tokens.

    Raises:
        ConfigurationError: the model cannot write any of them, so no answer would end.
    """
    stated = given.get("eos_token_id", getattr(tokenizer, "eos_token_id", None))
    eos = frozenset(_list_tokens(stated if stated is not None else []))
    if eos and not any(_is_within(token, vocabulary) for token in eos):
        raise ConfigurationError(
            f"got eos_token_id={stated!r} in the generation settings of {checkpoint}, whose vocabulary has the "
            f"tokens 0 to {(vocabulary or 0) - 1}: no answer would end; correct it in a copy of the checkpoint",
            param="model",
        )
    return eos


def _find_pad(
    given: Mapping[str, Any],
    model_config: Any,
    tokenizer: Any,
    eos: frozenset[int],
    vocabulary: int | None,
) -> int:
    """Returns the first padding token that has an embedding and stands for no picture."""
    media = {
        getattr(model_config, f"{kind}_token_{form}", None)
        for kind in ("image", "video")
        for form in ("id", "index")
    }
    pads = (given.get("pad_token_id"), getattr(tokenizer, "pad_token_id", None), *sorted(eos), 0)
    usable = [
        int(token)
        for token in pads
        if token is not None and _is_within(token, vocabulary) and token not in media
    ]
    return usable[0] if usable else 0


def _find_stop_strings(given: Mapping[str, Any], checkpoint: str) -> tuple[str, ...]:
    stops = given.get("stop_strings", ())
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise ConfigurationError(
            f"got stop_strings={stops!r:.200} in the generation settings of {checkpoint}, expected texts; correct "
            "them in a copy of the checkpoint",
            param="model",
        )
    return stops
