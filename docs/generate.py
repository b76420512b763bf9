"""Writes the tables of the reference that come from definitions in the code.

    python docs/generate.py

Each table stands between `<!-- KIND: NAME -->` and `<!-- end -->`; `reference/openapi.json` is written as a whole. A
test fails where one is older than the code.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))

from grafana_board import render_board

from videoqa import errors
from videoqa.bulk import ANSWER_COLUMNS, ArchiveRecord, ResultLine, RowFailure
from videoqa.gateway import GatewaySettings, make_app
from videoqa.gateway.reference.error_codes import CORE_CODES, GATEWAY_CODES, find_status_of
from videoqa.settings import Settings, Variable
from videoqa.telemetry import log_events as producer_events
from videoqa.telemetry.log_event import list_events
from videoqa.telemetry.log_fields import CONTEXT, EVERY_LINE, FIELDS
from videoqa.telemetry.metrics import GATEWAY_METRICS, WORKER_METRICS, Label, Metric
from videoqa.telemetry.metrics.declaration import CODE
from videoqa_worker import log_events as worker_events
from videoqa_worker.settings import WorkerSettings

__all__ = ["BOARD", "OPENAPI", "PAGES", "render", "render_board", "render_openapi"]

REFERENCE = Path(__file__).parent / "reference"
PAGES = tuple(
    REFERENCE / f"{name}.md" for name in ("settings", "results", "errors", "log-events", "metrics")
)
OPENAPI = REFERENCE / "openapi.json"
BOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "videoqa.json"
_TABLE = re.compile(
    r"(<!-- (settings|fields|columns|codes|statuses|events|words|metrics): (\w+) -->\n).*?(<!-- end -->)",
    re.DOTALL,
)
_CODE = re.compile(r"^\| (?:<a id=.*?></a>)?`(\w+)` \|", re.MULTILINE)
_RECORDS = {model.__name__: model for model in (ResultLine, RowFailure, ArchiveRecord)}
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def render(text: str) -> str:
    """Returns the page with its tables written anew."""
    makers = {
        "settings": _list_settings,
        "fields": _list_fields,
        "columns": _list_columns,
        "codes": _list_codes,
        "statuses": _list_statuses,
        "events": _list_events,
        "words": _list_words,
        "metrics": _list_metrics,
    }
    found = _TABLE.sub(lambda m: f"{m[1]}{makers[m[2]](m[3])}\n{m[4]}", text)
    # The `type` of a problem document leads to its code's row.
    return (
        _CODE.sub(r'| <a id="\1"></a>`\1` |', found) if found.startswith("# Error codes") else found
    )


def render_openapi() -> str:
    """Returns the document of the gateway's routes."""
    return json.dumps(make_app(GatewaySettings()).openapi(), indent=1, ensure_ascii=False) + "\n"


def _list_codes(_: str) -> str:
    rows = [
        (f"`{code}`", str(each.status), each.meaning, each.next_step)
        for code, each in sorted(GATEWAY_CODES.items())
    ]
    return _draw(("code", "status", "meaning", "what to do"), rows)


def _list_statuses(_: str) -> str:
    """Lists the codes of the first table that come as HTTP errors: all but those of a job's failure."""
    by_status: dict[int, list[str]] = {}
    for code, kind in sorted(CORE_CODES.items()):
        if not issubclass(kind, errors.JobError) or code == "internal_error":
            by_status.setdefault(find_status_of(code), []).append(f"`{code}`")
    return _draw(
        ("status", "codes"),
        [(str(status), ", ".join(codes)) for status, codes in sorted(by_status.items())],
    )


def _list_events(name: str) -> str:
    modules = {"producer": producer_events, "worker": worker_events}
    rows = [
        (
            f"`{each.name}`",
            each.level,
            re.sub(r"%\((\w+)\)\.?\w+", r"{\1}", each.text),
            each.meaning,
            ", ".join(f"`{field}`" for field in each.fields),
        )
        for each in list_events(modules[name])
    ]
    return _draw(("event", "level", "line", "meaning", "fields"), rows)


def _list_words(name: str) -> str:
    """Lists the fields of log lines."""
    words = {"line": EVERY_LINE, "context": CONTEXT, "event": FIELDS}[name]
    return _draw(
        ("field", "meaning"), [(f"`{field}`", meaning) for field, meaning in words.items()]
    )


def _list_settings(name: str) -> str:
    both = Settings.table()
    kinds = {"WorkerSettings": WorkerSettings, "GatewaySettings": GatewaySettings}
    rows = both if name == "Settings" else [row for row in kinds[name].table() if row not in both]
    return _draw(("variable", "default", "meaning"), [_list_cells(row) for row in rows])


def _list_cells(row: Variable) -> tuple[str, ...]:
    default = {"": "unset", "()": "none"}.get(row.default, f"`{row.default}`")
    return f"`{row.name}`", default, row.reason


def _list_metrics(name: str) -> str:
    metrics = {"gateway": GATEWAY_METRICS, "worker": WORKER_METRICS}[name]
    return _draw(
        ("metric", "type", "labels", "meaning"),
        [
            (f"`{each.name}`", each.kind, _list_labels(each), _describe_metric(each))
            for each in metrics
        ],
    )


def _list_labels(metric: Metric) -> str:
    def describe(label: Label) -> str:
        if label == CODE:
            return "a code of a failed job, or `other`"
        return ", ".join(f"`{value}`" for value in label.values) or label.bound

    return "; ".join(f"**{label.name}**: {describe(label)}" for label in metric.labels)


def _describe_metric(metric: Metric) -> str:
    bounds = " ".join(f"{bound:g}" for bound in metric.buckets)
    return metric.meaning + (f". Buckets: {bounds}" if bounds else "")


def _list_fields(name: str) -> str:
    rows = [
        (f"`{each}`", _name_type(field.annotation), " ".join((field.description or "").split()))
        for each, field in _RECORDS[name].model_fields.items()
    ]
    return _draw(("field", "type", "meaning"), rows)


def _list_columns(name: str) -> str:
    rows = [(f"`{each.name}`", _name_type(each.kind), each.meaning) for each in ANSWER_COLUMNS]
    return _draw((name, "type", "meaning"), rows)


def _name_type(kind: Any) -> str:
    inner = [each for each in get_args(kind) if each not in (type(None), ...)]
    if get_origin(kind) is tuple:
        return f"list of {_name_type(inner[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if inner:
        is_optional = type(None) in get_args(kind)
        return _name_type(inner[0]) + (" or null" if is_optional else "")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](contract.md#{kind.__name__.lower()})"
    return _WORDS.get(kind, "time")


def _draw(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [" | ".join(cells) for cells in (head, *rows)]
    lines.insert(1, "|".join(["---"] * len(head)))
    return "\n".join(f"|{line}|" if line.startswith("---") else f"| {line} |" for line in lines)


if __name__ == "__main__":
    changed = 0
    for page in PAGES:
        before = page.read_text()
        after = render(before)
        page.write_text(after)
        changed += before != after
    for path, text in ((OPENAPI, render_openapi()), (BOARD, render_board())):
        changed += not path.exists() or path.read_text() != text
        path.write_text(text)
    sys.stderr.write("written\n" if changed else "nothing to write\n")
