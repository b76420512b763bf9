"""A checkpoint's own generation settings shape answers in slots and in padded batches as in plain `generate`."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import TOGETHER, Reference, answers, ask, submitted
from support.models import END, PAD, clip
from transformers import GenerationConfig, LogitsProcessor

from videoqa.contract import Generation, GenerationInForce
from videoqa.errors import ConfigurationError, NoTokenAllowed
from videoqa_worker.engine import Engine, Generated, inspect_checkpoint
from videoqa_worker.engine.model.checkpoint.generation_config import FIELDS, adopt
from videoqa_worker.engine.model.loading import LoadedModel, load
from videoqa_worker.engine.scheduling.coalescing import compute_key
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.settings import EngineConfig

ROOT = Path(__file__).parents[4]
LETTERS = [6 + n for n in range(60, 70)]
Tokens = list[tuple[int, ...]]
Tell = Callable[..., Tokens]

SHAPED: dict[str, list[Any]] = {
    "sequence_bias": [[[[n], -30.0] for n in range(90, 110)] + [[[80, 81], 9.0]]],
    "encoder_repetition_penalty": [1.9],
    "repetition_penalty": [1.6, 0.7],
    "no_repeat_ngram_size": [2],
    "encoder_no_repeat_ngram_size": [1],
    "bad_words_ids": [[[n] for n in range(90, 110)] + [[END], [80, 81]]],
    "min_length": [10_000],
    "min_new_tokens": [20],
    "forced_bos_token_id": [70],
    "forced_eos_token_id": [END, [END, 70]],
    "exponential_decay_length_penalty": [[2, 1.7]],
    "suppress_tokens": [list(range(90, 110))],
    "begin_suppress_tokens": [list(range(40, 120))],
    "watermarking_config": [{"bias": 4.0, "greenlist_ratio": 0.3}],
    "renormalize_logits": [True],
    "stop_strings": ["vI", ["D", "i", "zz"]],
    "eos_token_id": [END, [END, 80, 81, 82, 10**6]],
    "pad_token_id": [70],
    "bos_token_id": [3],
    "decoder_start_token_id": [3],
}
"""Values of each honoured setting."""
WITHOUT_TRACE = {
    "forced_bos_token_id",
    "renormalize_logits",
    "pad_token_id",
    "bos_token_id",
    "decoder_start_token_id",
}
"""Settings that leave the greedy tokens of a decoder with a long prompt as they are, in `generate` too."""
PLAIN = {"eos_token_id": [END, *LETTERS], "pad_token_id": PAD}
"""Settings with which some answers end early."""


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    config = EngineConfig(model=str(checkpoint("interleave")), device="cpu", cpu_threads=1)
    return load(config, lambda state: None)


@pytest.fixture(scope="module")
def reference(checkpoint: Callable[[str], Path]) -> Reference:
    return Reference(checkpoint("interleave"))


@contextmanager
def engine_with(
    loaded: LoadedModel, settings: dict[str, Any], batching: str = "slots"
) -> Iterator[Engine]:
    """An engine on a model that is loaded already, as if its checkpoint stated these settings."""
    own = GenerationConfig.from_dict({**PLAIN, **settings})
    generation = adopt(own, "a checkpoint", loaded.model.config, loaded.tokenizer)
    config = EngineConfig(model="a checkpoint", device="cpu", batching=batching, **TOGETHER)  # type: ignore[arg-type]
    with Engine(config, loader=lambda *_: replace(loaded, generation=generation)) as engine:
        yield engine


@pytest.fixture
def told(loaded: LoadedModel) -> Tell:
    def of(settings: dict[str, Any], batching: str, **row: Any) -> Tokens:
        with engine_with(loaded, settings, batching) as engine:
            return [answer.tokens for answer in answers(engine, make_requests(engine, **row))]

    return of


def make_requests(engine: Engine, **row: Any) -> list[Any]:
    """Prompts and limits of different lengths, in one batch."""
    return [
        ask(engine, [clip(n, 1 + n)], "What? " * (n + 1), max_new_tokens=24 - 3 * n, **row)
        for n in range(3)
    ]


def test_every_field_of_transformers_has_a_use() -> None:
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}  # type: ignore[no-untyped-call]
    assert fields == set(FIELDS)
    assert {name for name, field in FIELDS.items() if field.use == "honoured"} == set(SHAPED)
    page = (ROOT / "docs" / "guide" / "models.md").read_text()
    assert not [name for name in FIELDS if f"`{name}`" not in page]


def test_both_paths_write_the_tokens_of_plain_generate(
    loaded: LoadedModel, reference: Reference, told: Tell
) -> None:
    plain, wrong = told({}, "slots"), []
    combined = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 9}
    cases = [{name: value} for name, values in SHAPED.items() for value in values]
    for settings in [{}, *cases, {**combined, "suppress_tokens": LETTERS[:4]}]:
        with engine_with(loaded, settings) as engine, reference.stating({**PLAIN, **settings}):
            expected = [reference.tokens(request) for request in make_requests(engine)]
            by_slots = [answer.tokens for answer in answers(engine, make_requests(engine))]
        if by_slots != expected or told(settings, "generate") != expected:
            wrong.append(f"{settings}: not as in generate")
        if (expected == plain) is not (not settings or bool(settings.keys() & WITHOUT_TRACE)):
            wrong.append(f"{settings}: {'no' if expected == plain else 'a'} trace in the answers")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def stated(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., EngineConfig]:
    """Writes a checkpoint whose generation_config.json is this text, or states these settings as well."""

    def of(settings: dict[str, Any] | str, **more: Any) -> EngineConfig:
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(checkpoint("interleave"), folder)
        file = folder / "generation_config.json"
        if isinstance(settings, str):
            file.write_text(settings)
        else:
            file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return EngineConfig(model=str(folder), device="cpu", cpu_threads=1, **more)

    return of


REFUSED: list[tuple[dict[str, Any] | str, str]] = [
    ({"num_beams": 4}, "num_beams=4"),
    ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, "num_beams=4"),
    ({"constraints": [1]}, "constraints"),
    ({"force_words_ids": [[70]]}, "force_words_ids"),
    ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}, "penalty_alpha=0.6"),
    ({"dola_layers": "high"}, "dola_layers='high'"),
    ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
    ({"token_healing": True}, "token_healing=True"),
    ({"is_assistant": True}, "is_assistant=True"),
    ({"num_return_sequences": 2}, "num_return_sequences=2"),
    ({"max_time": 2.0}, "max_time=2.0"),
    ({"eos_token_id": [700, 701]}, r"eos_token_id=\[700, 701\].*no answer would end"),
    ({"eos_token_id": "</s>"}, "eos_token_id with '</s>'"),
    ({"bad_words_ids": [[5000]]}, "bad_words_ids with 5000"),
    ({"bad_words_ids": []}, r"bad_words_ids=\[\]"),
    ({"forced_eos_token_id": 5000}, "forced_eos_token_id with 5000"),
    ({"suppress_tokens": ["a"]}, "suppress_tokens with 'a'"),
    ({"sequence_bias": [[[70], 1]]}, "sequence_bias="),
    ({"sequence_bias": [70]}, "sequence_bias="),
    ({"repetition_penalty": -1.0}, "repetition_penalty=-1.0"),
    ({"min_new_tokens": "three"}, "min_new_tokens='three'"),
    ({"exponential_decay_length_penalty": 3}, "exponential_decay_length_penalty=3"),
    ({"exponential_decay_length_penalty": [2, "1.1"]}, "it has to be a number, but is '1.1'"),
    ({"repetition_penalty": "1.1"}, "it has to be a number, but is '1.1'"),
    ({"repetition_penalty": math.inf}, "it has to be a number, but is inf"),
    ({"encoder_repetition_penalty": "1.1"}, "it has to be a number, but is"),
    ({"stop_strings": [""]}, "stop_strings"),
    ({"watermarking_config": {"ngram_len": 5, "keys": [1]}}, "ngram_len"),
    ({"cache_implementation": "none such"}, "cache_implementation"),
    ("[1]", "generation_config.json holds list"),
    ("{", "generation_config.json is not valid JSON"),
]


def test_what_is_not_honoured_is_refused_by_name_before_weights_are_read(
    stated: Callable[..., EngineConfig],
) -> None:
    wrong = []
    for settings, message in REFUSED:
        try:
            inspect_checkpoint(stated(settings))
            wrong.append(f"{settings} is not refused")
        except ConfigurationError as error:
            is_told = re.search(message, error.message)
            if not is_told or not re.search("server|copy|download it again", error.message):
                wrong.append(f"{settings}: {error.message}")
    assert not wrong, "\n".join(wrong)
    with pytest.raises(ConfigurationError, match="num_beams=4"):
        Engine(stated({"num_beams": 4})).start()


def test_settings_without_effect_refuse_nothing(
    stated: Callable[..., EngineConfig], told: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    unused = {
        **{name: 1 for name, field in FIELDS.items() if field.use == "no effect"},
        **{"cache_implementation": "static", "compile_config": None, "early_stopping": True},
        "assistant_ensemble_weight": 0.5,
        **{
            "penalty_alpha": 0.6,
            "top_k": 4,
            "do_sample": True,
            "pad_token_id": -1,
            "typical_p": 0.5,
        },
        "continuous_batching_config": None,
    }
    with caplog.at_level("INFO"), Engine(stated(unused)) as engine:
        found = [answer.tokens for answer in answers(engine, make_requests(engine))]
    assert found == told({"eos_token_id": END, "repetition_penalty": 1.1}, "slots")
    assert "typical_p=0.5" in caplog.text
    assert "not used: an answer is greedy" in caplog.text


def test_settings_of_old_checkpoints_in_config_json_are_honoured(
    stated: Callable[..., EngineConfig], told: Tell
) -> None:
    config = stated({})
    folder = Path(config.model)
    (folder / "generation_config.json").unlink()
    main = folder / "config.json"
    main.write_text(json.dumps({**json.loads(main.read_text()), "no_repeat_ngram_size": 2}))
    with Engine(config) as engine:
        found = [answer.tokens for answer in answers(engine, make_requests(engine))]
    assert found == told({"eos_token_id": END, "no_repeat_ngram_size": 2}, "slots")


@pytest.mark.parametrize("batching", ["slots", "generate"])
def test_an_answer_in_which_every_token_is_forbidden_fails_alone(
    loaded: LoadedModel, batching: str
) -> None:
    written_once = {"no_repeat_ngram_size": 1, "suppress_tokens": [*set(range(262)) - {*LETTERS}]}
    with engine_with(loaded, {**written_once, "eos_token_id": END}, batching) as engine:
        requests = [ask(engine, [clip(1, 1)], "?", max_new_tokens=n) for n in (24, 5, 3)]
        ends = [future.exception(60) or future.result() for future in submitted(engine, requests)]
    assert isinstance(ends[0], NoTokenAllowed)
    assert "suppress_tokens" in ends[0].message
    assert [end.output_tokens for end in ends[1:] if isinstance(end, Generated)] == [5, 3]


def test_settings_that_forbid_every_first_token_are_refused_at_the_start(
    loaded: LoadedModel,
) -> None:
    settings = {"begin_suppress_tokens": list(range(262))}
    with (
        pytest.raises(ConfigurationError, match="forbid every token"),
        engine_with(loaded, settings),
    ):
        pass


def test_a_checkpoint_that_cannot_end_an_answer_is_told(
    loaded: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    with engine_with(loaded, {"suppress_tokens": [END, *LETTERS]}) as engine:
        found = answers(engine, make_requests(engine))
    assert {answer.finish_reason for answer in found} == {"length"}
    assert "never writes an end token" in caplog.text


PENALTIES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.7},
    {"frequency_penalty": 1.5},
    {"presence_penalty": 2.0},
    {"repetition_penalty": 0.6, "frequency_penalty": -0.7, "presence_penalty": 1.0},
]


class _Penalized(LogitsProcessor):
    """The penalties as vLLM defines them: repetition over all tokens, the others over the answer."""

    def __init__(self, asked: dict[str, float], prompt: int) -> None:
        self._asked, self._prompt = asked, prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        everything = input_ids[0].tolist()
        for token in set(everything):
            factor = self._asked.get("repetition_penalty", 1.0)
            scores[0, token] *= 1 / factor if scores[0, token] > 0 else factor
        for token, count in Counter(everything[self._prompt :]).items():
            scores[0, token] -= self._asked.get("frequency_penalty", 0.0) * count
            scores[0, token] -= self._asked.get("presence_penalty", 0.0)
        return scores


def test_penalties_of_requests_are_those_of_vllm_in_a_batch_with_others(
    loaded: LoadedModel, reference: Reference
) -> None:
    wrong = []
    for batching in ("slots", "generate"):
        with engine_with(loaded, {"repetition_penalty": 1.2}, batching) as engine:
            for penalties in PENALTIES:
                plain, asked = make_requests(engine), make_requests(engine, **penalties)
                found = answers(engine, [*asked[:2], plain[2]])
                with reference.stating({**PLAIN, "repetition_penalty": 1.2}):
                    others = [reference.tokens(request) for request in plain]
                with reference.stating(PLAIN):
                    of_checkpoint = {"repetition_penalty": 1.2, **penalties}
                    expected = [
                        reference.tokens(one, _Penalized(of_checkpoint, one.inputs.length))
                        for one in asked[:2]
                    ]
                if [answer.tokens for answer in found] != [*expected, others[2]]:
                    wrong.append(f"{batching}, {penalties}: not as defined")
                if expected == others[:2]:
                    wrong.append(f"{penalties}: no trace in the answers")
    assert not wrong, "\n".join(wrong)


def test_equal_questions_with_other_penalties_share_no_answer(loaded: LoadedModel) -> None:
    with engine_with(loaded, {}) as engine:
        rows = [{}, *PENALTIES, {"top_k": 3}, {"min_p": 0.3}]
        keys = {compute_key(ask(engine, [clip(1, 1)], "What?", **row)) for row in rows}
    assert len(keys) == len(rows)


def draws(logits: list[float], count: int = 300, **row: Any) -> set[int]:
    """Tokens that a sampler draws of these logits."""
    sampler = Sampler(Generation(**{"temperature": 1.0, **row}), 0, torch.device("cpu"))
    return {int(sampler.draw(torch.tensor(logits))) for _ in range(count)}


def test_filters_of_requests_are_those_of_vllm() -> None:
    logits = [math.log(share) for share in (0.4, 0.25, 0.2, 0.1, 0.05)]
    assert draws(logits) == {0, 1, 2, 3, 4}
    assert draws(logits, top_k=2) == draws(logits, top_k=2, min_p=0.1) == {0, 1}
    assert draws(logits, top_k=1) == {0}
    assert (
        draws(logits, top_k=0)
        == draws(logits, top_k=-1)
        == draws(logits, top_k=99)
        == {0, 1, 2, 3, 4}
    )
    assert draws(logits, min_p=0.3) == {0, 1, 2}
    assert draws(logits, min_p=1.0) == {0}
    assert draws([1.0, 1.0, 1.0, 0.0], top_k=2) == {0, 1, 2}  # ties stay
    assert draws(logits, top_k=3, top_p=0.5) == {0, 1}
    assert draws(logits, min_p=0.3, top_p=0.48) == {0, 1}
    for seed in (0, 2**63 - 1):
        assert Sampler(Generation(temperature=2, seed=seed), seed, torch.device("cpu")).draws == 0


def test_the_engine_states_what_is_in_force(loaded: LoadedModel) -> None:
    stated = {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 4,
        "stop_strings": "END",
        "top_k": 5,
    }
    long = {"suppress_tokens": list(range(150, 262)) * 4}
    with engine_with(loaded, {**stated, **long}) as engine:
        found = engine.stated_generation
    assert found == {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 4,
        "stop_strings": ["END"],
        "suppress_tokens": "448 values",
    }
    plain = GenerationInForce.of(Generation(max_new_tokens=5), found)
    assert (plain.repetition_penalty, plain.from_checkpoint) == (1.2, found)
    own = GenerationInForce.of(Generation(repetition_penalty=1.0), found)
    assert own.repetition_penalty == 1.0
    assert own.from_checkpoint.keys() == found.keys() - {"repetition_penalty"}


def test_a_bias_without_end_is_honoured_and_stated(loaded: LoadedModel) -> None:
    """JSON of results has no infinity."""
    bias = {"sequence_bias": [[[token], -math.inf] for token in LETTERS[1:8]]}
    with engine_with(loaded, bias) as engine:
        found = engine.stated_generation
        tokens = {token for each in answers(engine, make_requests(engine)) for token in each.tokens}
    assert not tokens & set(LETTERS[1:8])
    stated = GenerationInForce.of(Generation(), found)
    assert GenerationInForce.model_validate_json(stated.model_dump_json()) == stated
    assert found["sequence_bias"][0] == [[LETTERS[1]], "-inf"]


@pytest.mark.parametrize("batching", ["slots", "generate"])
def test_a_stop_string_may_have_special_tokens(loaded: LoadedModel, batching: str) -> None:
    start, letters = 1, [66, 67]  # <|im_start|> is no end of this checkpoint
    script = {
        "sequence_bias": [
            [[66], 60.0],
            [[66, 67], 90.0],
            [[67, start], 150.0],
            [[66, 67, start], 9.0],
        ]
    }
    texts: list[str] = []
    with engine_with(loaded, {**script, "eos_token_id": END}, batching) as engine:
        word = loaded.tokenizer.decode(letters)
        ends = (["<|im_start|>"], [f"{word[1]}<|im_start|>"], [f"<|im_start|>{word[0]}"])
        requests = [
            ask(engine, [clip(1, 1)], "What?", stop=stop, on_text=texts.append) for stop in ends
        ]
        plain = answers(engine, [ask(engine, [clip(1, 1)], "What?", max_new_tokens=6)])[0]
        found = [answers(engine, [request])[0] for request in requests]
    assert plain.tokens[:4] == (66, 67, start, 66)
    assert [(one.finish_reason, one.text) for one in found] == [
        ("stop_string", word),
        ("stop_string", word[0]),
        ("stop_string", word),
    ]
    assert "".join(texts) == word + word[0] + word


def test_no_sequence_says_a_pair_of_tokens_twice(told: Tell) -> None:
    settings = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 2}
    for row in ({}, {"temperature": 1.0, "seed": 3}):
        for tokens in told(settings, "slots", **row):
            pairs = list(itertools.pairwise(tokens))
            assert len(set(pairs)) == len(pairs)


def test_a_sequence_that_samples_never_says_what_is_suppressed(told: Tell) -> None:
    hot = {"temperature": 1.9, "seed": 3}
    free = told({}, "slots", **hot)
    said = sorted({token for tokens in free for token in tokens} - {END})
    settings = {"suppress_tokens": said[::2]}
    bound = told(settings, "slots", **hot)
    assert not {token for tokens in bound for token in tokens} & set(said[::2])
    assert bound == told(settings, "generate", **hot)
