"""The docs page: all of it from the gateway itself, without a script, and with commands that run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx

from videoqa.gateway import GatewayServer, GatewaySettings, make_app
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.reference.curl import make_curl
from videoqa.gateway.reference.document import list_operations
from videoqa.gateway.reference.html import element, render_line

Connect = Callable[..., httpx.Client]

APP = make_app(GatewaySettings())
ENTRIES = [
    (method, path, APP.openapi()["paths"][path][method.lower()])
    for method, path, _, _ in list_operations(APP)
]


class Page(HTMLParser):
    """Tags, ids and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_the_page_has_no_script_and_nothing_of_another_host(connect: Connect) -> None:
    answer = connect().get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'self'"} <= {*policy}
    assert not re.search("unsafe|https?:", answer.headers["content-security-policy"])
    page = Page(answer.text)
    assert not {"script", "style", "iframe", "img", "object", "form"} & page.tags
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        assert name not in ("src", "style", "srcset", "action")
        assert name != "href" or re.fullmatch(
            r"#\w+|docs/style\.css|docs/icon\.svg|openapi\.json", value
        ), value


def test_the_style_is_the_gateways_own(connect: Connect) -> None:
    http = connect()
    style = http.get("/docs/style.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert not re.search(r"url\(|@import|//", style.text)
    assert "prefers-color-scheme: dark" in style.text
    again = http.get("/docs/style.css", headers={"if-none-match": style.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_icon_is_the_gateways_own_and_runs_nothing(connect: Connect) -> None:
    icon = connect().get("/docs/icon.svg")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert "img-src 'self'" in icon.headers["content-security-policy"]
    assert not re.search("script|href|style", icon.text)


def test_descriptions_have_the_words_of_json() -> None:
    assert not re.search(r"\b(None|True|False):", json.dumps(APP.openapi()))


def test_each_link_leads_somewhere_and_each_operation_is_there(connect: Connect) -> None:
    page = Page(connect().get("/docs").text)
    assert len(set(page.ids)) == len(page.ids)
    links = {value.removeprefix("#") for name, value in page.attributes if value.startswith("#")}
    assert links <= set(page.ids)
    assert {entry["operationId"] for _, _, entry in ENTRIES} <= set(page.ids)


def test_the_curl_commands_run_in_a_shell(
    gateway: GatewayServer, keys: KeyStore, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    key = keys.create("curl", ("admin",))
    environment = os.environ | {"VIDEOQA_URL": gateway.url, "VIDEOQA_API_KEY": key.text}
    for method, path, entry in ENTRIES:
        if entry["operationId"] == "create_chat_completion":
            continue  # waits for a worker; test_openai_chat.py has one
        command = f"{make_curl(method, path, entry)} -s -o /dev/null -w '%{{http_code}}'"
        done = subprocess.run(
            ["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=True,
        )  # fmt: skip
        assert done.stdout in entry["responses"], f"{command}: {done.stdout}"
        needs_thing = "{" in path or entry["operationId"] == "create_batch"
        assert done.stdout[0] == "2" or needs_thing, f"{command}: {done.stdout}"


def test_text_is_escaped() -> None:
    assert element("p", "<script>", title='"') == '<p title="&quot;">&lt;script&gt;</p>'
    assert render_line("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
