"""The curl line of an operation, made of its example."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import quote, urlencode

__all__ = ["format_json", "make_curl"]

_WIDTH = 76
_BASE = '"$VIDEOQA_URL'


def make_curl(method: str, path: str, entry: dict[str, Any]) -> str:
    """Returns a command for a shell that has VIDEOQA_URL and VIDEOQA_API_KEY."""
    query = {}
    for each in entry.get("parameters", []):
        name, value = each["name"], str(each["example"])
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
        if each["in"] == "query" and each.get("required"):
            query[name] = value
    if query:
        path += f"?{urlencode(query)}"
    words = ["curl"]
    if entry["responses"].get("200", {}).get("content", {}).keys() == {"text/event-stream"}:
        words.append("--no-buffer")
    if method == "HEAD":
        words.append("--head")
    elif method not in ("GET", "POST") or (method == "POST" and "requestBody" not in entry):
        words.append(f"-X {method}")
    lines = [f'{" ".join(words)} {_BASE}{path}"']
    if entry["security"]:
        lines.append('-H "Authorization: Bearer $VIDEOQA_API_KEY"')
    contents = entry.get("requestBody", {}).get("content", {})
    if contents:
        kind, content = next(iter(contents.items()))
        lines += _give_body(kind, content["example"])
    return " \\\n  ".join(lines)


def _give_body(kind: str, example: Any) -> list[str]:
    if kind == "multipart/form-data":
        return [f"-F {shlex.quote(f'{name}={value}')}" for name, value in example.items()]
    if kind == "application/json":
        return [
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(format_json(example, indent=2))}",
        ]
    return [f"-H 'Content-Type: {kind}'", "--data-binary @clip.mp4"]


def format_json(value: Any, indent: int = 0) -> str:
    """Formats JSON for a reader: what fits into a line stays in one."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + indent <= _WIDTH or not isinstance(value, dict | list) or not value:
        return text
    space = " " * (indent + 2)
    rows = (
        [f"{json.dumps(name)}: {format_json(each, indent + 2)}" for name, each in value.items()]
        if isinstance(value, dict)
        else [format_json(each, indent + 2) for each in value]
    )
    body = ",\n".join(space + row for row in rows)
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{body}\n{' ' * indent}{end}"
