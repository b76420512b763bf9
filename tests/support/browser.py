"""A headless Chromium, and what a page may not do in it: errors, calls of other hosts, breaches of its own policy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python import base as axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

__all__ = ["SIZES", "Watched", "find_chromium", "launch", "watch"]

ROOT = Path(__file__).parents[2]
SIZES = {"phone": (360, 740), "desk": (1440, 900)}
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--no-first-run", "--disable-extensions", "--mute-audio",
    "--disable-dev-shm-usage", "--disable-domain-reliability", "--no-pings",
    "--disable-features=OptimizationHints,MediaRouter,Translate,DialMediaRouteProvider",
)  # fmt: skip
_REPORT = """
addEventListener('securitypolicyviolation', e => console.error('policy:', e.violatedDirective, e.blockedURI))
"""
_AXE = Path(axe.__file__).with_name("axe.min.js")


def find_chromium() -> str | None:
    """Returns the program that `.ci/fetch_chromium.sh` unpacked, or an installed one."""
    unpacked = ROOT / ".venv/chromium/chromium"
    return str(unpacked) if unpacked.exists() else shutil.which("chromium")


@contextmanager
def launch(program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and all that it did wrong so far."""

    page: Page
    host: str
    mistakes: list[str] = field(default_factory=list)

    def find_axe_violations(self, rules: list[str] | None = None) -> list[str]:
        """Returns what axe-core finds: rule, its help, and the elements."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(_AXE.read_text())
        options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
        if rules is not None:
            options["runOnly"] = {"type": "rule", "values": rules}
        found = self.page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{each['id']}: {each['help']}: {node['html'][:150]} {node['failureSummary'][-200:]}"
            for each in found["violations"]
            for node in each["nodes"][:3]
        ]

    def show(self, theme: str, size: str) -> None:
        width, height = SIZES[size]
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]

    def check(self) -> None:
        """Asserts that the page is right in both themes, at a phone's and at a desk's width."""
        found: list[str] = []
        for theme, size, rules in (
            ("light", "desk", None),
            ("dark", "phone", None),
            ("dark", "desk", ["color-contrast"]),
            ("light", "phone", ["color-contrast"]),
        ):
            self.show(theme, size)
            found += [f"{theme}, {size}: {one}" for one in self.find_axe_violations(rules)]
            wide = self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            if wide > 0:
                found.append(f"{theme}, {size}: {wide} pixels wider than the window")
        assert not found, "\n".join([self.page.url, *found])
        assert not self.mistakes, "\n".join([self.page.url, *self.mistakes])


def watch(context: BrowserContext, url: str) -> Watched:
    """Opens a page that is watched, without an address yet."""
    page = context.new_page()
    watched = Watched(page, urlsplit(url).netloc)
    page.add_init_script(_REPORT)

    def note_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            watched.mistakes.append(f"console: {message.text} {message.location.get('url', '')}")

    def note_request(request: Any) -> None:
        where = urlsplit(request.url)
        if where.scheme not in ("data", "blob") and where.netloc != watched.host:
            watched.mistakes.append(f"a call of another host: {request.url[:200]}")

    page.on("console", note_console)
    page.on("pageerror", lambda error: watched.mistakes.append(f"script: {error}"))
    page.on("request", note_request)
    return watched
