"""The page `/docs`: the OpenAPI document as HTML, without a script and without another host."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from videoqa.gateway.reference.curl import format_json, make_curl
from videoqa.gateway.reference.error_codes import (
    GATEWAY_CODES,
    describe_code,
)
from videoqa.gateway.reference.html import Html, element, join, render_line, render_text

__all__ = ["make_page"]

_METHODS = ("post", "get", "put", "patch", "delete", "head", "options")
_NO_LIMIT = 1e15
"""Limits from here on are left out of the page: nobody comes near."""
_START = """export VIDEOQA_URL=https://videoqa.example.org
export VIDEOQA_API_KEY=vqa_...
curl "$VIDEOQA_URL/v1/models" -H "Authorization: Bearer $VIDEOQA_API_KEY\""""


def make_page(document: Mapping[str, Any]) -> str:
    """Makes the page of a document."""
    return _Page(document).render()


class _Page:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._operations = list(self._list_operations())

    def _list_operations(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        for path, item in sorted(self._document["paths"].items()):
            for method in _METHODS:
                if method in item:
                    yield item[method]["tags"][0], method.upper(), path, item[method]

    def render(self) -> str:
        """Renders the page."""
        title = f"{self._document['info']['title']} {self._document['info']['version']}"
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{title} - HTTP API"),
            element("link", rel="stylesheet", href="docs/style.css"),
            element("link", rel="icon", href="docs/icon.svg", type="image/svg+xml"),
        )
        body = element(
            "body",
            element("nav", self._render_contents(), id="contents"),
            element(
                "main",
                element("p", element("a", "Contents", href="#contents"), class_="to-contents"),
                self._render_introduction(title),
                *(self._render_tag(tag) for tag in self._document["tags"]),
                self._render_codes(),
                self._render_schemas(),
            ),
        )
        return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"

    def _find_of_tag(self, name: str) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (method, path, entry) for tag, method, path, entry in self._operations if tag == name
        ]

    # -- contents

    def _render_contents(self) -> Html:
        lists = [element("p", element("a", "Start", href="#start"))]
        for tag in self._document["tags"]:
            items = [
                element(
                    "li",
                    element(
                        "a",
                        _render_method(method),
                        _break_path(path),
                        href=f"#{entry['operationId']}",
                    ),
                )
                for method, path, entry in self._find_of_tag(tag["name"])
            ]
            lists += [element("h2", tag["name"]), element("ul", *items)] if items else []
        lists.append(
            element(
                "p",
                element("a", "Error codes", href="#codes"),
                Html("<br>"),
                element("a", "Schemas", href="#schemas"),
                Html("<br>"),
                element("a", "openapi.json", href="openapi.json"),
            )
        )
        return join(*lists)

    def _render_introduction(self, title: str) -> Html:
        return element(
            "section",
            element("h1", title),
            render_text(self._document["info"]["description"]),
            element("pre", element("code", _START)),
            render_text(
                "`videoqa keys create` makes a key. Clients in other languages are generated from "
                "`openapi.json`."
            ),
            id="start",
        )

    # -- operations

    def _render_tag(self, tag: Mapping[str, str]) -> Html:
        operations = self._find_of_tag(tag["name"])
        if not operations:
            return Html("")
        return element(
            "section",
            element("h2", tag["name"]),
            render_text(tag["description"]),
            *(self._render_operation(*each) for each in operations),
        )

    def _render_operation(self, method: str, path: str, entry: dict[str, Any]) -> Html:
        name = entry["operationId"].replace("_", " ").capitalize()
        parts = [
            element("h3", element("a", name, href=f"#{entry['operationId']}")),
            element("p", _render_method(method), " ", element("code", path), class_="route"),
            render_text(entry["description"]),
            element("pre", element("code", make_curl(method, path, entry))),
        ]
        if entry["parameters"]:
            parts.append(self._render_parameters(entry["parameters"]))
        for kind, content in entry.get("requestBody", {}).get("content", {}).items():
            parts.append(element("p", "Body: ", self._name(content["schema"]), f" as {kind}."))
        for status, answer in entry["responses"].items():
            if int(status) < 400:
                parts.append(self._render_answer(status, answer))
        parts.append(self._render_errors(entry))
        return element("article", *parts, id=entry["operationId"])

    def _render_parameters(self, parameters: list[dict[str, Any]]) -> Html:
        rows = [
            (
                element("code", each["name"]),
                join(self._name(each["schema"]), f" in the {each['in']}"),
                render_line(each["description"]),
            )
            for each in parameters
        ]
        return _draw(("parameter", "type", "meaning"), rows)

    def _render_answer(self, status: str, answer: dict[str, Any]) -> Html:
        own = [name for name, header in answer["headers"].items() if "$ref" not in header]
        parts = [element("p", element("b", status), " ", render_line(answer["description"]))]
        if own:
            headers = ", ".join(f"`{name}`" for name in own)
            parts.append(element("p", "Headers: ", render_line(headers), "."))
        for kind, content in answer.get("content", {}).items():
            parts.append(
                element(
                    "details",
                    element("summary", self._name(content["schema"]), f" as {kind}"),
                    element("pre", element("code", _show(content["example"]))),
                )
            )
        return element("div", *parts, class_="answer")

    def _render_errors(self, entry: dict[str, Any]) -> Html:
        rows = []
        for status, answer in entry["responses"].items():
            if int(status) < 400:
                continue
            (content,) = self._resolve(answer)["content"].values()
            codes = [
                element("a", element("code", code), href=f"#{code}") for code in content["examples"]
            ]
            rows.append((Html(status), join(*_separate(codes, ", "))))
        return element("details", element("summary", "Errors"), _draw(("status", "codes"), rows))

    def _resolve(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in answer:
            return answer
        shared: dict[str, Any] = self._document["components"]["responses"]
        found: dict[str, Any] = shared[answer["$ref"].rpartition("/")[2]]
        return found

    # -- codes and schemas

    def _render_codes(self) -> Html:
        statuses = {code: {str(each.status)} for code, each in GATEWAY_CODES.items()}
        for _, _, _, entry in self._operations:
            for status, answer in entry["responses"].items():
                for content in self._resolve(answer).get("content", {}).values():
                    for code in content.get("examples", ()):
                        statuses.setdefault(code, set()).add(status)
        rows = [
            (
                element("code", code, id=code),
                Html(", ".join(sorted(statuses[code]))),
                render_line(describe_code(code)),
            )
            for code in sorted(statuses)
        ]
        return element(
            "section",
            element("h2", "Error codes"),
            _draw(("code", "status", "meaning"), rows),
            id="codes",
        )

    def _render_schemas(self) -> Html:
        return element(
            "section",
            element("h2", "Schemas"),
            *(self._render_schema(name, each) for name, each in sorted(self._schemas.items())),
            id="schemas",
        )

    def _render_schema(self, name: str, schema: dict[str, Any]) -> Html:
        required = schema.get("required", ())
        rows = [
            (
                element("code", field),
                join(self._name(each), "" if field in required else ", may be left out"),
                render_line(each.get("description", "")),
            )
            for field, each in schema.get("properties", {}).items()
        ]
        return element(
            "article",
            element("h3", element("a", name, href=f"#{name}")),
            render_text(schema.get("description", "")),
            _draw(("field", "type", "meaning"), rows) if rows else Html(""),
            id=name,
        )

    def _name(self, schema: Any) -> Html:
        """Names the type of a schema, with its limits."""
        if not isinstance(schema, dict) or not schema:
            return Html("any")
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return element("a", name, href=f"#{name}")
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return join(*_separate([self._name(each) for each in schema[key]], " or "))
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return join(*_separate([element("code", str(each)) for each in values], " or "))
        return self._name_simple(schema)

    def _name_simple(self, schema: dict[str, Any]) -> Html:
        """Names a list, an object or a value."""
        if schema.get("type") == "array":
            return join("list of ", self._name(schema.get("items")), _limit(schema))
        if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
            return join("object of ", self._name(schema["additionalProperties"]), _limit(schema))
        words = {"date-time": "time", "date": "day"}
        name = words.get(str(schema.get("format")), str(schema.get("type", "any")))
        return join(name, _limit(schema))


def _limit(schema: dict[str, Any]) -> str:
    """Describes the limits of a value."""
    signs = {
        "minimum": "from ",
        "exclusiveMinimum": "above ",
        "maximum": "up to ",
        "exclusiveMaximum": "below ",
        "minLength": "at least ",
        "maxLength": "at most ",
        "minItems": "at least ",
        "maxItems": "at most ",
    }
    found = [
        f"{sign}{schema[name]:,g}"
        for name, sign in signs.items()
        if name in schema and abs(schema[name]) < _NO_LIMIT
    ]
    return f" ({', '.join(found)})" if found else ""


def _show(example: Any) -> str:
    return example if isinstance(example, str) else format_json(example)


def _separate(parts: Sequence[str], text: str) -> list[str]:
    found: list[str] = []
    for part in parts:
        found += [text, part] if found else [part]
    return found


def _break_path(path: str) -> Html:
    """Renders a path that may be broken after a slash."""
    return element("span", Html("/<wbr>").join(html.escape(part) for part in path.split("/")))


def _render_method(method: str) -> Html:
    return element("span", method, class_=f"method {method.lower()}")


def _draw(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Html:
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *(element("th", each) for each in head))),
            element(
                "tbody",
                *(element("tr", *(element("td", cell) for cell in row)) for row in rows),
            ),
        ),
        class_="table",
    )
