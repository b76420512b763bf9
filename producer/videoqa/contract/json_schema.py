"""JSON schemas of answers: what no worker could serve, found by light code that compiles nothing.

The limits keep what a worker's library does with a schema below 50 ms. What only that library can find (a schema
that nothing satisfies, `oneOf` whose branches overlap) fails the job with `answer_not_served`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from videoqa.contract.pattern import find_pattern_mistake
from videoqa.suggestions import suggest

__all__ = ["close_objects", "find_schema_mistakes"]

MOST_BYTES = 65_536
"""Bytes of a schema as compact JSON."""
MOST_DEPTH = 32
"""Schemas in each other, before a `$ref`."""
MOST_SCHEMAS = 400
"""Schemas in one, each property's and item's counted."""
MOST_VALUES = 2_000
"""Values of all `enum`s together."""
MOST_COUNT = 10_000
"""Largest length or number of items that a schema may name."""

_ONE = frozenset({"items", "additionalItems", "additionalProperties"})
_MANY = frozenset({"prefixItems", "allOf", "anyOf", "oneOf"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_UNSERVED = frozenset(
    {
        "not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames", "dependencies",
        "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef",
        "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "x-guidance",
    }
)  # fmt: skip
"""Keywords that would restrict an answer, and that no worker serves; others are remarks, and are ignored."""
_TYPES = ("null", "boolean", "object", "array", "number", "string", "integer")
_FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
"""Characters without a short escape in JSON."""
_MOST_NUMBER = 10**15
_PARTS_TOGETHER = frozenset({"allOf", "anyOf", "oneOf", "$ref"})

Mistake = tuple[str, str]
"""Path to a place in the schema, and what is wrong there."""


def find_schema_mistakes(schema: dict[str, Any], path: str) -> Iterator[Mistake]:
    """Yields the mistakes of a schema; `path` is its own place in the request."""
    try:
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (RecursionError, TypeError, ValueError) as error:
        yield path, f"got no JSON, or too deep a schema: {error}"
        return
    if size > MOST_BYTES:
        yield path, f"got a schema of {size} bytes, expected at most {MOST_BYTES}"
        return
    yield from _Walk(schema).check(schema, path, 0)


class _Walk:
    """One look at a whole schema; stops at the limits."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._schemas = self._values = 0

    def check(self, schema: Any, path: str, depth: int) -> Iterator[Mistake]:
        """Yields the mistakes of a schema and of those in it."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            yield path, "got no schema, expected an object, true or false"
            return
        self._schemas += 1
        if self._schemas > MOST_SCHEMAS or depth > MOST_DEPTH:
            if self._schemas == MOST_SCHEMAS + 1 or depth > MOST_DEPTH:
                yield (
                    path,
                    f"got more than {MOST_SCHEMAS} schemas, or {MOST_DEPTH} in each other",
                )
            return
        for keyword, value in schema.items():
            yield from self._check_keyword(keyword, value, f"{path}.{keyword:.100}", depth)

    def _check_keyword(self, keyword: str, value: Any, path: str, depth: int) -> Iterator[Mistake]:
        if keyword in _UNSERVED:
            yield (
                path,
                f"got {keyword}, which no worker serves; leave it out, and check the value yourself",
            )
        elif keyword == "uniqueItems":
            if value is not False:
                yield (
                    path,
                    "got uniqueItems, which no worker serves; leave it out, and check the value yourself",
                )
        elif keyword in _ONE and not isinstance(value, list):
            yield from self.check(value, path, depth + 1)
        elif keyword in _MANY or keyword == "items":
            if not isinstance(value, list) or not value:
                yield path, "got no list of schemas"
                return
            for n, part in enumerate(value):
                yield from self.check(part, f"{path}.{n}", depth + 1)
        elif keyword in _NAMED:
            yield from self._check_named(keyword, value, path, depth)
        else:
            mistake = self._describe(keyword, value)
            if mistake:
                yield path, mistake

    def _check_named(self, keyword: str, value: Any, path: str, depth: int) -> Iterator[Mistake]:
        if not isinstance(value, dict):
            yield path, "got no object of schemas"
            return
        for name, part in value.items():
            if keyword == "properties" and _has_control_characters(name):
                yield (
                    f"{path}.{name:.100}",
                    "got a control character, which no worker writes; leave it out",
                )
            if keyword == "patternProperties" and (mistake := find_pattern_mistake(name)):
                yield f"{path}.{name:.100}", mistake
            yield from self.check(part, f"{path}.{name:.100}", depth + 1)

    def _describe(self, keyword: str, value: Any) -> str | None:
        """Returns what is wrong with the value of a keyword that has no schema in it."""
        if keyword == "enum":
            self._values += len(value) if isinstance(value, list) else 0
            if not isinstance(value, list) or not value or self._values > MOST_VALUES:
                return f"expected a list of 1 to {MOST_VALUES} values, in all enums together"
        if keyword in ("const", "enum") and _has_control_characters(value):
            return "got a control character, which no worker writes; leave it out"
        if keyword == "$ref":
            return self._describe_ref(value)
        describe = _DESCRIBE.get(keyword)
        return describe(value) if describe is not None else None

    def _describe_ref(self, ref: Any) -> str | None:
        """Returns what is wrong with a reference: it has to lead to a schema of this document, in some steps."""
        found: Any = {"$ref": ref}
        for _ in range(MOST_DEPTH):
            if not isinstance(found, dict) or "$ref" not in found:
                break
            found = _follow(self._root, found["$ref"])
            if found is None:
                return f"got {ref!r:.100}, expected a schema of this document, as #/$defs/name"
        else:
            return f"got {ref!r:.100}, which leads to itself"
        return None


def _follow(root: Any, ref: Any) -> Any:
    """Returns the place that a JSON pointer names; None: there is none."""
    if ref == "#":
        return root
    if not isinstance(ref, str) or not ref.startswith("#/") or "%" in ref:
        return None
    for part in ref[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list) and name.isdecimal() and int(name[:6]) < len(root):
            root = root[int(name[:6])]
        elif isinstance(root, dict) and name in root:
            root = root[name]
        else:
            return None
    return root if isinstance(root, dict | bool) else None


def _has_control_characters(value: Any) -> bool:
    """Returns True if a text in the value can only be written with a Unicode escape, which the library leaves out."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str) and _CONTROL.search(one):
            return True
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
    return False


def _describe_type(value: Any) -> str | None:
    for name in value if isinstance(value, list) and value else [value]:
        if not isinstance(name, str):
            return "expected a type or a list of types"
        if name not in _TYPES:
            return f"got {name!r:.100}; {suggest(name, _TYPES)}"
    return None


def _describe_pattern(value: Any) -> str | None:
    return find_pattern_mistake(value) if isinstance(value, str) else "expected text"


def _describe_format(value: Any) -> str | None:
    if value in _FORMATS:
        return None
    return f"got {value!r:.100}, expected one of {', '.join(_FORMATS)}"


def _describe_names(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return None
    return "expected a list of names"


def _describe_count(value: Any) -> str | None:
    if type(value) is int and 0 <= value <= MOST_COUNT:
        return None
    return f"got {value!r:.100}, expected a whole number up to {MOST_COUNT}"


def _describe_number(value: Any) -> str | None:
    return None if type(value) in (int, float) else f"got {value!r:.100}, expected a number"


_DESCRIBE: Mapping[str, Callable[[Any], str | None]] = {
    "type": _describe_type,
    "pattern": _describe_pattern,
    "format": _describe_format,
    "required": _describe_names,
    **dict.fromkeys(_COUNTS, _describe_count),
    **dict.fromkeys(_NUMBERS, _describe_number),
}
"""Checks of the values of keywords; each returns what is wrong."""


def close_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema whose objects have no other properties than those that they name, and whose numbers have bounds.

    A number without bounds gets -1e15 and 1e15, within which every program keeps it; else a model might write 9e999.
    An object whose `additionalProperties` is given stays as it is. So do all, if parts of one object are described
    in several places (`allOf`, or `properties` beside `anyOf`): each would then forbid those of the others.
    """
    return cast(dict[str, Any], _close(schema, closes=not _has_parts(schema)))


def _list_schemas(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword, value in schema.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from value.values()
        elif keyword in _MANY or keyword in _ONE:
            yield from value if isinstance(value, list) else [value]


def _has_parts(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    if "allOf" in schema or ("properties" in schema and schema.keys() & _PARTS_TOGETHER):
        return True
    return any(_has_parts(part) for part in _list_schemas(schema))


def _is_number(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type")
    return bool({"number", "integer"} & {*(kinds if isinstance(kinds, list) else [kinds])})


def _close(schema: Any, *, closes: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "uniqueItems":  # false, which is the default
            continue
        if keyword in _NAMED and isinstance(value, dict):
            closed[keyword] = {name: _close(part, closes=closes) for name, part in value.items()}
        elif keyword in _MANY or keyword in _ONE:
            parts = (
                [_close(part, closes=closes) for part in value] if isinstance(value, list) else None
            )
            closed[keyword] = _close(value, closes=closes) if parts is None else parts
        else:
            closed[keyword] = value
    is_open = (
        "properties" in schema and not {"additionalProperties", "patternProperties"} & schema.keys()
    )
    if closes and not schema.keys() & (_NUMBERS | {"enum", "const"}) and _is_number(schema):
        closed |= {"minimum": -_MOST_NUMBER, "maximum": _MOST_NUMBER}
    if closes and is_open:
        closed["additionalProperties"] = False
    return closed
