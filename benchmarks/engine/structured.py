"""Costs of structured answers: the masks of a step, hostile forms, and llguidance beside xgrammar.

    python benchmarks/engine/structured.py [--vocabulary N] [--rows N] [--json]

The vocabulary is a byte-level one of so many tokens, made here from random words. Times are CPU milliseconds of this
process, all threads together, so that a busy machine does not change them much. xgrammar is measured if it can be
imported. With --model, the steps of an engine on that checkpoint are measured too, free ones against ones of a form.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from videoqa.contract import AnswerForm, ChoiceAnswer, JsonAnswer, NumberAnswer, RegexAnswer
from videoqa.errors import AnswerNotServed
from videoqa_worker.engine.structured.masks import TokenMasks, mask_logits
from videoqa_worker.engine.structured.matcher import GrammarCompiler, Matcher, count_words

SCENE = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 100},
        "people": {"type": "integer", "minimum": 0, "maximum": 1000},
        "indoors": {"type": "boolean"},
        "objects": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 10},
        "mood": {"enum": ["calm", "busy", "tense"]},
    },
    "required": ["place", "people", "indoors", "objects", "mood"],
    "additionalProperties": False,
}
FORMS: dict[str, AnswerForm] = {
    "json": JsonAnswer(kind="json", json_schema=SCENE),
    "choice": ChoiceAnswer(kind="choice", choices=tuple(f"option {n}" for n in range(256))),
    "number": NumberAnswer(kind="number", minimum=0, maximum=100),
    "regex": RegexAnswer(kind="regex", pattern=r"[a-z]{1,20}( [a-z]{1,20}){0,10}\."),
}
_REF = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"type": "array", "items": {"$ref": f"#/$defs/d{n + 1}"}}]}
        for n in range(25)}  # fmt: skip
HOSTILE: dict[str, dict[str, Any] | str] = {
    "recursive": {"$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    "branches in branches": {"$defs": {**_REF, "d25": {"type": "string"}}, "$ref": "#/$defs/d0"},
    "390 optional properties": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(390)}},
    "390 numbers with bounds": {"type": "object", "properties": {
        f"p{n}": {"type": "number", "minimum": n * 1.37, "maximum": n * 37.123 + 1} for n in range(390)}},
    "2000 values": {"enum": [f"value number {n}" for n in range(2000)]},
    "long strings": {"type": "array", "items": {"type": "string", "maxLength": 10_000}, "maxItems": 10_000},
    "31 objects in each other": {},
    "(a+)+b": "(a+)+b",
    "((a{0,100}){0,100}){0,100}": "((a{0,100}){0,100}){0,100}",
    "[ab]*a[ab]{20}": "[ab]*a[ab]{20}",
    "(.*a){15}.{1,200}": "(.*a){15}.{1,200}",
    "a{1000}": "a{1000}",
    r"(\w{1,200}\s?){1,200}": r"(\w{1,200}\s?){1,200}",
    r"[\p{L}]{3,1000}": r"[\p{L}]{3,1000}",
    "450 alternatives": "|".join(f"w{n * 7919}" for n in range(450)),
}  # fmt: skip
_deep: dict[str, Any] = {"type": "string"}
for _ in range(31):
    _deep = {"type": "object", "properties": {"a": _deep, "b": {"type": "integer"}}}
HOSTILE["31 objects in each other"] = _deep


def make_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Returns a byte-level tokenizer of so many tokens: bytes, and words of every length with and without a space."""
    rng = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: n for n, text in enumerate(["<|end|>", *alphabet])}
    letters = "etaoinshrdlcumwfgypbvk" * 3 + 'ETAOIN0123456789,.:{}[]"_-'
    while len(vocabulary) < size:
        word = "".join(rng.choices(letters, k=rng.randint(2, 9)))
        vocabulary.setdefault(("Ġ" if rng.random() < 0.5 else "") + word, len(vocabulary))
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def measure(work: Callable[[], Any]) -> float:
    """Returns CPU milliseconds."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e3


def walk(matcher: Matcher, row: np.ndarray, rng: random.Random, steps: int) -> list[float]:
    """Returns the CPU milliseconds of each mask of a random answer."""
    spent = []
    for _ in range(steps):
        spent.append(measure(lambda: matcher.fill(row)))
        allowed = np.nonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))[0]
        matcher.consume(int(rng.choice(allowed)))
        if matcher.is_complete:
            break
    return spent


def measure_masks(compiler: GrammarCompiler, width: int) -> dict[str, Any]:
    found = {}
    rng, row = random.Random(1), np.zeros(count_words(width), np.int32)
    for name, form in FORMS.items():
        compiled = measure(lambda form=form: compiler.make(form))
        spent = [ms for _ in range(5) for ms in walk(compiler.make(form).start(), row, rng, 60)]
        found[name] = {
            "compile_ms": compiled, "mask_ms": statistics.mean(spent), "mask_p99_ms": _find_p99(spent),
        }  # fmt: skip
    return found


def _find_p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def measure_step(compiler: GrammarCompiler, width: int, rows: int) -> dict[str, float]:
    """Returns the milliseconds that a step of so many rows of JSON takes for its masks and for their application."""
    grammar, rng = compiler.make(FORMS["json"]), random.Random(2)
    matchers = [grammar.start() for _ in range(rows)]
    masks, spent, wall, applied = TokenMasks(), [], [], []
    for _ in range(20):
        begun_s = time.perf_counter()
        spent.append(measure(lambda: (masks.start(matchers), masks.wait())))
        wall.append((time.perf_counter() - begun_s) * 1e3)
        logits = torch.zeros(rows, width)
        found = masks._masks[:rows].copy()
        applied.append(
            measure(lambda logits=logits, found=found: mask_logits(logits, [*range(rows)], found))
        )
        for n, matcher in enumerate(matchers):
            allowed = np.nonzero(np.unpackbits(found[n].view(np.uint8), bitorder="little"))[0]
            matcher.consume(int(rng.choice(allowed)))
            if matcher.is_complete:
                matchers[n] = grammar.start()
    masks.close()
    return {
        "masks_cpu_ms": statistics.median(spent), "masks_wall_ms": statistics.median(wall),
        "apply_cpu_ms": statistics.median(applied),
    }  # fmt: skip


def measure_hostile(tokenizer: Any, width: int) -> dict[str, Any]:
    found = {}
    rng, row = random.Random(3), np.zeros(count_words(width), np.int32)
    compiler = GrammarCompiler(tokenizer, [tokenizer.eos_token_id], width)
    compiler.make(FORMS["number"])  # reads the vocabulary
    for name, given in HOSTILE.items():
        form: AnswerForm = (
            RegexAnswer(kind="regex", pattern=given) if isinstance(given, str)
            else JsonAnswer(kind="json", json_schema=given)
        )  # fmt: skip
        begun, outcome, masks = time.process_time(), "served", [0.0]
        try:
            grammar = compiler.make(form)
        except AnswerNotServed as error:
            outcome = f"refused: {error}"
        compiled = (time.process_time() - begun) * 1e3
        if outcome == "served":
            try:
                masks = walk(grammar.start(), row, rng, 100)
            except AnswerNotServed as error:
                outcome = f"refused at a step: {error}"
        found[name] = {"compile_ms": compiled, "mask_max_ms": max(masks), "outcome": outcome[:120]}
    return found


def measure_xgrammar(tokenizer: Any, width: int) -> dict[str, Any] | None:
    try:
        import xgrammar as xgr
    except ImportError:
        return None
    info = xgr.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
    compiler = xgr.GrammarCompiler(info, max_threads=1)
    makers = {
        "json": lambda: compiler.compile_json_schema(json.dumps(SCENE), any_whitespace=False),
        "choice": lambda: compiler.compile_regex("|".join(FORMS["choice"].choices)),  # type: ignore[union-attr]
        "regex": lambda: compiler.compile_regex(FORMS["regex"].pattern),  # type: ignore[union-attr]
    }
    found, rng = {}, random.Random(1)
    for name, make in makers.items():
        compiled = measure(make)
        grammar, spent = make(), []
        for _ in range(5):
            matcher = xgr.GrammarMatcher(grammar)
            mask = xgr.allocate_token_bitmask(1, width)
            for _ in range(60):
                spent.append(measure(lambda m=matcher, b=mask: m.fill_next_token_bitmask(b)))
                allowed = np.nonzero(np.unpackbits(mask.numpy().view(np.uint8), bitorder="little"))[
                    0
                ]
                matcher.accept_token(int(rng.choice(allowed)))
                if matcher.is_terminated():
                    break
        found[name] = {
            "compile_ms": compiled, "mask_ms": statistics.mean(spent), "mask_p99_ms": _find_p99(spent),
        }  # fmt: skip
    return found


def measure_engine(model: str, rows: int, tokens: int = 24) -> dict[str, float]:
    """Returns the CPU milliseconds of a decode step of so many rows: free, and of a form that fills all tokens."""
    from videoqa.contract import Generation
    from videoqa_worker.engine import Engine, GenerationRequest
    from videoqa_worker.prompt import FrameInput
    from videoqa_worker.settings import EngineConfig

    form = JsonAnswer(kind="json", json_schema={"type": "array", "items": {"type": "string", "maxLength": 20},
                                                "minItems": 100})  # fmt: skip
    spent: dict[str, list[float]] = {"free": [], "json": []}
    config = EngineConfig(
        model=model, device="cpu", cpu_threads=1, max_batch=rows, batch_wait_s=1.0
    )
    with Engine(config) as engine:
        frames = [FrameInput("video", (np.zeros((32, 32, 3), np.uint8),))]
        for n in range(5):
            for name, found in spent.items():
                inputs = engine.prompter.build(frames, "What happens?")
                requests = [
                    GenerationRequest(
                        inputs, generation=Generation(max_new_tokens=tokens, temperature=1.0, seed=n * rows + k),
                        form=form if name == "json" else None,
                    )
                    for k in range(rows)
                ]  # fmt: skip
                before, begun = engine.stats, time.process_time()
                for future in [engine.submit(request) for request in requests]:
                    future.result()
                cpu_ms = (time.process_time() - begun) * 1e3
                if n:  # the first round fills the caches
                    found.append(cpu_ms / (engine.stats.rows - before.rows) * rows)
    free, json_ms = (statistics.median(each) for each in spent.values())
    return {"free_ms": free, "json_ms": json_ms, "ratio": json_ms / free}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--model", help="Folder of a checkpoint.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    width = given.vocabulary
    tokenizer = make_tokenizer(width)
    compiler = GrammarCompiler(tokenizer, [tokenizer.eos_token_id], width)
    read_ms = measure(lambda: compiler.make(FORMS["number"]))
    found = {
        "vocabulary": width,
        "read_vocabulary_ms": read_ms,
        "llguidance": measure_masks(compiler, width),
        "xgrammar": measure_xgrammar(tokenizer, width),
        f"step of {given.rows}": measure_step(compiler, width, given.rows),
        "hostile": measure_hostile(tokenizer, width),
    }
    if given.model:
        found["engine"] = measure_engine(given.model, given.rows)
    print(json.dumps(found, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
