"""A corpus of 200 JSON schemas: whatever a random model writes under one of them parses, and the schema describes it.

schema_corpus.json has all schemas of the JSON Schema Test Suite, draft 2020-12 (its tests and those of formats; MIT
licence, copyright 2012 Julian Berman), that pass the checks at submit, and some of our own. The random model draws
each token from all that may follow, more often one that closes what is open.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from support.models import END, tiny_tokenizer

from videoqa.contract import JsonAnswer, ValueUnreadable, parse_request, read_value
from videoqa.errors import AnswerNotServed
from videoqa_worker.engine.structured.matcher import Grammar, GrammarCompiler, Matcher, count_words

CORPUS = json.loads((Path(__file__).parent / "schema_corpus.json").read_text())
WALKS = 4
LONGEST = 400
"""Bytes of an answer that is not complete; it counts as cut off."""
LEAST_WHOLE = 0.8
"""Share of the answers that have to be whole, so that the test has something to look at."""


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    tokenizer = tiny_tokenizer(bos=False)
    return GrammarCompiler(tokenizer, [END], len(tokenizer))


def draw(matcher: Matcher, row: np.ndarray, rng: random.Random, closing: set[int]) -> int:
    matcher.fill(row)
    allowed = np.nonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))[0].tolist()
    closes = [token for token in allowed if token in closing]
    return int(rng.choice(closes if closes and rng.random() < 0.5 else allowed))


def write(grammar: Grammar, tokenizer: Any, rng: random.Random) -> str | None:
    """Returns a random answer; None: it was cut off."""
    closing = {END, *(tokenizer.convert_tokens_to_ids(one) for one in '"}],')}
    row, tokens = np.zeros(count_words(len(tokenizer)), np.int32), list[int]()
    matcher = grammar.start()
    for _ in range(LONGEST):
        token = draw(matcher, row, rng, closing)
        if token == END:
            return str(tokenizer.decode(tokens)).strip()
        tokens.append(token)
        matcher.consume(token)
        if matcher.is_complete:
            return str(tokenizer.decode(tokens)).strip()
    return None


def is_described(validator: Any, form: JsonAnswer, text: str) -> bool:
    """Returns True if the schema describes the value; a schema of any value allows numbers that no float holds."""
    try:
        return bool(validator.is_valid(read_value(form, text)))
    except ValueUnreadable as error:
        return "beyond the range" in str(error)


def test_what_a_random_model_writes_under_a_schema_parses_and_is_described_by_it(
    compiler: GrammarCompiler,
) -> None:
    assert len(CORPUS) >= 200
    tokenizer, rng = tiny_tokenizer(bos=False), random.Random(1)
    unserved, whole, cut = [], 0, 0
    for row in CORPUS:
        answer = {"kind": "json", "json_schema": row["schema"]}
        parse_request({"inputs": "s3://b/a", "questions": "?", "answer": answer})
        form = JsonAnswer(kind="json", json_schema=row["schema"])
        try:
            grammar = compiler.make(form)
        except AnswerNotServed:
            unserved.append(row["case"])
            continue
        validator = jsonschema.Draft202012Validator(row["schema"])
        for _ in range(WALKS):
            text = write(grammar, tokenizer, rng)
            if text is None:
                cut += 1
                continue
            whole += 1
            assert is_described(validator, form, text), (row["case"], text)
    assert len(unserved) <= 17, unserved
    assert whole > LEAST_WHOLE * (whole + cut)
