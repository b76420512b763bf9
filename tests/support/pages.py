"""The Markdown pages of the repository: code blocks, headings, links, words; and the command line that they show."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
import typer
import videoqa_command

from videoqa.cli.main import app

__all__ = [
    "LIBRARY_PAGE",
    "PAGES",
    "ROOT",
    "Block",
    "Command",
    "anchors_of",
    "blocks_of",
    "command_line",
    "commands_of",
    "links_of",
    "prose_words",
]

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / folder / "README.md" for folder in (".", "producer", "worker", "deploy")),
        ROOT / "CONTRIBUTING.md",
    ]
)
"""The pages whose code blocks are run or marked."""
LIBRARY_PAGE = ROOT / "docs/guide/library.md"
"""Its blocks run beside the tests of the library, which have torch."""

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n\Z")
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None
    """The reason in the comment above it; None: the block is run."""
    end: int
    """Offset of its end in the page."""
    follows: int
    """Offset of its beginning."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """Returns the code blocks of a page in order."""
    return tuple(_find_blocks(page))


def _find_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        mark = _MARK.search(before)
        yield Block(
            page=page,
            line=before.count("\n") + 1,
            language=found["language"],
            code=found["code"],
            not_run=mark["reason"] if mark else None,
            end=found.end(),
            follows=found.start(),
        )


@dataclass(frozen=True)
class Command:
    """A `bash` block, and the output that the page shows of it, in a block right behind."""

    block: Block
    shown: Block | None


def commands_of(page: Path) -> list[Command]:
    """Returns the `bash` blocks of a page that are run, in order."""
    text, blocks = page.read_text(), blocks_of(page)
    found = []
    for block, after in zip_longest(blocks, blocks[1:]):
        if block.language == "bash" and block.not_run is None:
            is_shown = (
                after is not None
                and after.language in ("json", "text")
                and not text[block.end : after.follows].strip()
            )
            found.append(Command(block, after if is_shown else None))
    return found


def _without_code(text: str) -> str:
    return _FENCE.sub("", text)


def links_of(page: Path) -> list[str]:
    """Returns the targets of all links and pictures of a page."""
    return [found["target"] for found in _LINK.finditer(_without_code(page.read_text()))]


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    anchors: list[str] = []
    for line in _without_code(page.read_text()).splitlines():
        heading = re.match(r"#{1,6} +(.*)", line)
        if heading:
            words = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            count = sum(
                re.fullmatch(rf"{re.escape(words)}(-\d+)?", one) is not None for one in anchors
            )
            anchors.append(f"{words}-{count}" if count else words)
    return frozenset(anchors)


def prose_words(page: Path) -> int:
    """Counts the words of a page outside of tables and code."""
    lines = _without_code(page.read_text()).splitlines()
    return sum(len(line.split()) for line in lines if not line.startswith("|"))


@cache
def command_line() -> typer.Typer:
    """Returns the real command line, with the commands that the worker adds at its start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["videoqa", "--help"])
        with pytest.raises(SystemExit):
            videoqa_command.main()
    return app
