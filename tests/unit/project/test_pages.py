"""README and docs: links that lead somewhere, pages of a readable length, code blocks that are right."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import typer
from support.pages import (
    PAGES,
    ROOT,
    Block,
    anchors_of,
    blocks_of,
    command_line,
    commands_of,
    links_of,
    prose_words,
)

from videoqa.bulk import Manifest, ResultLine
from videoqa.contract import JobRequest, QueueInfo, Result
from videoqa.gateway import GatewaySettings
from videoqa.gateway.webhooks.deliveries import make_body
from videoqa.storage import ObjectStore
from videoqa_worker.settings import WorkerSettings

MARKDOWN = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("training/*/*.md")})
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LANGUAGES = {"sh", "bash", "python", "json", "text", "html"}
COMMANDS = [command for page in PAGES for command in commands_of(page)]
SHOWN = {command.shown for command in COMMANDS}
"""Outputs of commands, which `test_curl_lines.py` compares with what the commands print."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links and lengths


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors_of(target), f"{name_of(page)} links to {link}"


BASES = [
    ROOT,
    ROOT / "producer" / "videoqa",
    ROOT / "worker" / "videoqa_worker",
    ROOT / "worker" / "videoqa_worker" / "engine",
]


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"], ids=name_of
)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for path in re.findall(r"`([\w/]+/\w+\.(?:py|lua|md))`", page.read_text()):
        named = path.replace("NAME", "common")
        assert any((base / named).exists() for base in BASES), f"{name_of(page)} names {path}"


def test_the_readme_is_short_and_shows_the_client_first() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    assert "from videoqa import" in "\n".join(text.splitlines()[:40])


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=name_of)
def test_a_page_has_at_most_1500_words_outside_of_tables_and_code(page: Path) -> None:
    assert prose_words(page) <= 1500


# -- code blocks


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_names_its_language(block: Block) -> None:
    assert block.language in LANGUAGES, (
        "a block is sh with commands of ours, bash with curl, python, json, or text if it is a drawing"
    )


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "python"], ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec")


def _objects_in(code: str) -> Iterator[Any]:
    decoder, rest = json.JSONDecoder(), code.strip()
    while rest:
        found, end = decoder.raw_decode(rest)
        yield found
        rest = rest[end:].strip()


def _check_error(fields: dict[str, Any]) -> None:
    assert set(fields["error"]) == {"code", "message", "param"}


def _check_manifest_line(fields: dict[str, Any]) -> None:
    with NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(json.dumps(fields))
        file.flush()
        defaults = {"questions": ["What is happening?"]}
        with Manifest([file.name], defaults=defaults, store=ObjectStore()) as manifest:
            (row,) = manifest.rows()
    assert row.custom_id == fields["custom_id"]


def _check_event(found: dict[str, Any]) -> None:
    """Compares a webhook's event with the one that is made of the same job."""
    data = found["data"]
    own = {name: data[name] for name in ("custom_id", "model", "tags", "metadata")}
    fields = {
        "id": found["id"], "job": data["id"], "tenant": data["tenant"], "state": data["state"], "failure": "",
        "attempt": str(data["attempt"]), "at": str(found["created_at"]), "webhook": json.dumps({"job": own}),
        "created_at": str(datetime.fromisoformat(data["created_at"]).timestamp()),
    }  # fmt: skip
    assert json.loads(make_body(fields)) == found


KINDS: tuple[tuple[set[str], Callable[[dict[str, Any]], object]], ...] = (
    ({"job_id", "usage"}, Result.model_validate),
    ({"custom_id", "ok"}, ResultLine.model_validate),
    ({"custom_id"}, _check_manifest_line),
    ({"inputs", "questions"}, JobRequest.model_validate),
    ({"oldest_s", "slots"}, QueueInfo.model_validate),
    ({"error"}, _check_error),
    ({"object", "data"}, _check_event),
)


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "json" and one not in SHOWN], ids=str
)
def test_every_json_block_is_a_message_of_the_contract(block: Block) -> None:
    for found in _objects_in(block.code):
        check = next((check for names, check in KINDS if names <= set(found)), None)
        assert check is not None, f"no message has the fields {sorted(found)}"
        check(found)


# -- shell commands

ASSIGNMENT = re.compile(r"[A-Z0-9_]+=")


def _check_line(line: str) -> None:
    words = shlex.split(re.sub(r"^id=\$\((.*)\)$", r"\1", line), comments=True)
    words = [word for word in words if word != "export"]
    assigned = list(takewhile(ASSIGNMENT.match, words))
    _check_variables(assigned)
    if words := words[len(assigned) :]:
        CHECKS[words[0]](words[1:])


def _check_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(command_line())
    context, name = None, "videoqa"
    while True:
        context = command.make_context(name, words, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        words = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, words)


def _check_variables(assigned: list[str]) -> None:
    environ = dict(word.split("=", 1) for word in assigned)
    known = {row.name for kind in (WorkerSettings, GatewaySettings) for row in kind.table()}
    for name in environ:
        assert name in known or not name.startswith("VIDEOQA_")
    WorkerSettings.from_environment(environ)


def _check_requirements(words: list[str]) -> None:
    assert words.pop(0) == "install"
    for word in words:
        local = re.fullmatch(r"\./(\w+)(?:\[(\w+)\])?", word)
        assert local, f"{word} is not a folder of the clone"
        project = tomllib.loads((ROOT / local[1] / "pyproject.toml").read_text())["project"]
        assert local[2] is None or local[2] in project["optional-dependencies"]


def _check_target(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        assert "=" in word or re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE)


def _check_script(words: list[str]) -> None:
    assert (ROOT / words[0]).exists()


def _check_paths(words: list[str]) -> None:
    """Compose's files and those of deploy/ are there, but for the one that the user writes."""
    for word in words:
        if word.startswith("deploy/") and word != "deploy/.env":
            assert (ROOT / word).exists()


CHECKS: dict[str, Callable[[list[str]], object]] = {
    "videoqa": _check_command,
    "pip": _check_requirements,
    "make": _check_target,
    **dict.fromkeys(("python", ".venv/bin/pytest"), _check_script),
    **dict.fromkeys(("docker", "cp"), _check_paths),
    **dict.fromkeys(("git", "cd", "."), list),
}
"""Checks of the arguments of each command; a command that is not here fails the test."""


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "sh"], ids=str)
def test_every_command_of_a_shell_block_is_understood(block: Block) -> None:
    for line in block.code.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            _check_line(part.strip())
