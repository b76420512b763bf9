"""Checks the English of the code: first lines that open a fragment, and functions named by a participle.

    python .ci/check_sentences.py            # fails on every finding
    python .ci/check_sentences.py --list     # prints all, participles outside of the packages too, and never fails

Two rules, both from CONTRIBUTING.md:

opener      The first line of a docstring (of a module, class, function or attribute) is a sentence about what the
            thing is or does. "What is left of a prompt." is a fragment, so no first line opens with such a word;
            nor does the first line of a comment in the two packages.
participle  A function of the two packages is named by a verb (`find_queued`, `is_known`), not by a bare participle
            (`queued`, `known`). Properties, classes and fields are nouns and free.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("producer", "worker")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "training", "examples", ".ci")

OPENER = re.compile(
    r"(What|Whether|Of|Where|Who|How|The same|So|And|Or|Which|When|But|Why|As|From)\b"
)

PARTICIPLE = re.compile(
    "[a-z]+(ed|en)|begun|bent|blown|born|bought|bound|brought|built|caught|clung|dealt|done|drawn|felt|flown|fought|"
    "found|gone|grown|heard|held|hung|kept|known|laid|left|lent|lit|lost|made|meant|met|paid|said|sat|sent|shot|shown|"
    "shrunk|sold|sought|spent|stood|stuck|struck|sunk|swept|sworn|taught|thought|thrown|told|torn|understood|won|worn|"
    "wound"
)
NO_PARTICIPLE = re.compile(
    "[a-z]*(open|len)|children|even|feed|embed|exceed|fasten|flatten|gen|green|happen|hasten|lengthen|listen|need|"
    "often|pen|proceed|red|screen|seed|seven|shed|shorten|speed|strengthen|succeed|ten|tighten|then|token|weaken|"
    "when|widen"
)
NOUN_DECORATORS = frozenset(
    {"property", "cached_property", "fixture", "setter", "getter", "deleter"}
)


@dataclass(frozen=True)
class Finding:
    """A place that breaks a rule."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def main() -> int:
    everything = "--list" in sys.argv[1:]
    findings = [each for path in find_files() for each in check(path, everything=everything)]
    for finding in findings:
        print(finding)
    for rule in ("opener", "participle"):
        count = sum(finding.rule == rule for finding in findings)
        if everything or count:
            print(f"{count} x {rule}", file=sys.stderr)
    return 1 if findings and not everything else 0


def find_files() -> Iterator[Path]:
    """Yields all Python files and Lua scripts of the repository."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".lua") and path.is_file():
                yield path.relative_to(ROOT)


def check(path: Path, *, everything: bool = False) -> Iterator[Finding]:
    """Yields the findings of one file; `everything` counts participles outside of the packages too."""
    source = (ROOT / path).read_text()
    packaged = path.parts[0] in PACKAGES
    if path.suffix == ".lua":
        yield from find_openers(path, read_lua_comments(source))
        return
    tree = ast.parse(source)
    yield from find_openers(path, read_docstrings(tree))
    if packaged:
        yield from find_openers(path, read_comments(source))
    if packaged or everything:
        yield from find_participles(path, tree)


def find_openers(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Finding]:
    for number, text in lines:
        if OPENER.match(text):
            yield Finding(path, number, "opener", text)


def read_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the first line of every string that stands alone as a statement: docstrings, of attributes too."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        value = node.value.value
        if isinstance(value, str) and value.strip():
            yield node.lineno, value.strip().splitlines()[0]


def read_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields the first line of every comment: of a block, and behind code."""
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            number, column = token.start
            alone = not token.line[:column].strip()
            if not (alone and last == number - 1):
                yield number, token.string.lstrip("#! -")
            last = number if alone else -1


def read_lua_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields the first line of every block of comments."""
    inside = False
    for number, line in enumerate(source.splitlines(), 1):
        comment = re.match(r"\s*--\s*(.*)", line)
        if comment and not inside:
            yield number, comment[1]
        inside = comment is not None


def find_participles(path: Path, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nouns = {name for decorator in node.decorator_list for name in _names(decorator)}
            if is_participle(node.name.lstrip("_")) and not nouns & NOUN_DECORATORS:
                yield Finding(path, node.lineno, "participle", f"def {node.name}")


def is_participle(word: str) -> bool:
    return bool(PARTICIPLE.fullmatch(word)) and not NO_PARTICIPLE.fullmatch(word)


def _names(decorator: ast.expr) -> Iterator[str]:
    """Yields all names in a decorator: `pytest` and `fixture` of `@pytest.fixture()`."""
    for node in ast.walk(decorator):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


if __name__ == "__main__":
    sys.exit(main())
