"""Code of a request: the same job by curl, by our Python client, and by OpenAI's, to copy from the page Ask."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pprint import pformat
from typing import Any

from markupsafe import escape

from videoqa.contract import guess_kind, is_file_id

__all__ = ["EXAMPLE_QUESTION", "EXAMPLE_URL", "list_codes"]

MOST_BYTES = 20_000
"""Bytes of HTML of a request of which a page has the code, three times."""
TOO_LONG = "# This request is too long to be shown as code: send it as JSON by POST /v1/jobs."
EXAMPLE_URL = "https://videos.example.org/clip.mp4"
EXAMPLE_QUESTION = "What happens in this video?"
_NOT_OF_OPENAI = (
    "priority",
    "tags",
    "sheet",
    "summary",
    "refine",
    "answer",
    "timeout_s",
    "max_attempts",
    "result_ttl_s",
    "cache",
)
_GENERATION = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_EXTRA = ("top_k", "min_p", "repetition_penalty")
"""Fields of `generation` that OpenAI's client takes only in `extra_body`."""


def list_codes(body: Mapping[str, Any], base_url: str, *, has_key: bool) -> dict[str, str]:
    """Returns the three programs for a body of `POST /v1/jobs`, which may lack its inputs and questions yet.

    Arguments:
        base_url: URL of the gateway, without `/v1`.
        has_key: the gateway asks for a key.
    """
    full = {**body, "inputs": body.get("inputs") or [EXAMPLE_URL]}
    questions = [text for text in body.get("questions", ()) if str(text).strip()]
    full["questions"] = questions or [EXAMPLE_QUESTION]
    if len(escape(json.dumps(full))) > MOST_BYTES:
        return dict.fromkeys(("curl", "python", "openai"), TOO_LONG)
    return {
        "curl": _make_curl(full, base_url, has_key=has_key),
        "python": _make_python(full, base_url, has_key=has_key),
        "openai": _make_openai(full, base_url, has_key=has_key),
    }


def _make_curl(body: Mapping[str, Any], base_url: str, *, has_key: bool) -> str:
    lines = [f"curl -sS {shlex.quote(base_url + '/v1/jobs')}"]
    if has_key:
        lines.append('  -H "Authorization: Bearer $VIDEOQA_API_KEY"')
    lines += [
        '  -H "Content-Type: application/json"',
        '  -H "Prefer: wait=60"',
        f"  -d {shlex.quote(_write_json(body))}",
    ]
    return " \\\n".join(lines)


def _write_json(body: Mapping[str, Any]) -> str:
    """Writes a field a line."""
    fields = (
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in body.items()
    )
    return "{\n" + ",\n".join(fields) + "\n}"


def _make_python(body: Mapping[str, Any], base_url: str, *, has_key: bool) -> str:
    fields = "".join(f"        {name}={_spell(value, 8)},\n" for name, value in body.items())
    key = "  # the key is that of VIDEOQA_API_KEY" if has_key else ""
    lines = [
        "from videoqa import Client",
        "",
        f"with Client({_spell(base_url)}) as client:{key}",
        f"    job = client.submit(\n{fields}    )",
    ]
    in_segments = body.get("sampling", {}).get("method") == "segment"
    if body.get("stream") and not in_segments and len(body["questions"]) == 1:
        lines += [
            "    for piece in client.stream(job.id):",
            '        print(piece.text, end="", flush=True)',
        ]
    elif in_segments:
        lines += [
            "    client.wait(job.id)",
            "    for segment in client.result(job.id).segments:",
            '        print(f"{segment.start:.1f} s: {segment.text}")',
        ]
    else:
        lines += [
            "    client.wait(job.id)",
            "    for answer in client.result(job.id).answers:",
            "        print(answer.text)",
        ]
    return "\n".join(lines)


def _make_openai(body: Mapping[str, Any], base_url: str, *, has_key: bool) -> str:
    """Makes the program of OpenAI's client, or the words why it cannot ask this."""
    sampling = body.get("sampling", {})
    if sampling.get("method") == "segment":
        return "# Answers about segments are many, and a chat has one: use curl or Python."
    questions = [str(text) for text in body["questions"]]
    if any("<video>" in text or "<image>" in text for text in questions):
        return "# Marks in a question are places of parts in a chat: use curl or Python."
    key = 'os.environ["VIDEOQA_API_KEY"]' if has_key else '"none"'
    lines = ["import os", ""] if has_key else []
    lines += [
        "from openai import OpenAI",
        "",
        f"client = OpenAI(base_url={_spell(base_url + '/v1')}, api_key={key})",
        f"media = {_spell([_make_part(one) for one in body['inputs']])}",
    ]
    left = [name for name in _NOT_OF_OPENAI if name in body]
    if left:
        lines.append(f"# A chat has no {', '.join(left)}; the job has the default of each.")
    lines += [f"for question in {_spell(questions)}:"]
    options = _list_options(body)
    system = body.get("system")
    before = "" if system is None else f"{_spell({'role': 'system', 'content': system})}, "
    asked = "".join(f"        {name}={_spell(value, 8)},\n" for name, value in options)
    lines += [
        "    answer = client.chat.completions.create(\n"
        f"        messages=[{before}"
        '{"role": "user", "content": [*media, {"type": "text", "text": question}]}],\n'
        f"{asked}    )"
    ]
    if body.get("stream"):
        lines += [
            "    for chunk in answer:",
            '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
            "    print()",
        ]
    else:
        lines += ["    print(answer.choices[0].message.content)"]
    return "\n".join(lines)


def _make_part(one: Any) -> dict[str, Any]:
    """Makes the part of a message for an input."""
    given: dict[str, Any] = {"url": one} if isinstance(one, str) else dict(one)
    kind = given.pop("kind", None) or guess_kind(given["url"])
    if is_file_id(given["url"]) and len(given) == 1:
        return {"type": "file", "file": {"file_id": given["url"]}}
    return {"type": f"{kind}_url", f"{kind}_url": given}


def _list_options(body: Mapping[str, Any]) -> list[tuple[str, Any]]:
    generation = body.get("generation", {})
    found = [("model", body.get("model"))]  # None: the workers' default
    found += [
        (theirs, generation[ours]) for ours, theirs in _GENERATION.items() if ours in generation
    ]
    if body.get("stream"):
        found.append(("stream", True))
    if body.get("metadata"):
        found.append(("metadata", body["metadata"]))
    extra = {name: generation[name] for name in _EXTRA if name in generation}
    if body.get("sampling"):
        extra["sampling"] = body["sampling"]
    if extra:
        found.append(("extra_body", extra))
    return found


def _spell(value: Any, indent: int = 0) -> str:
    """Returns a value as Python's source has it, with strings in double quotes where that is the same."""
    text = pformat(value, width=100 - indent, sort_dicts=False, compact=True)
    return text.replace("\n", "\n" + " " * indent)
