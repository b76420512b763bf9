"""Every page of the app, taken from its table of routes: right in both themes, on a phone and on a desk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from playwright.sync_api import Browser
from support.browser import SIZES, Watched, watch

from videoqa.gateway import GatewaySettings, make_app
from videoqa.gateway.dashboard.frame import PageRoute

from .conftest import Site

OpenPage = Callable[..., Watched]

PATHS = sorted(
    str(route.path)
    for route in iter_route_contexts(make_app(GatewaySettings()).routes)
    if isinstance(getattr(route, "original_route", route), PageRoute)
    and "GET" in (route.methods or ())
)


QUERIES = {"/jobs/bulk": "?action=retry&state=failed"}
"""Queries with which pages have more to show."""


def fill_path(path: str, site: Site) -> str:
    """Puts real ids into a path; a page about another thing than a job adds its own here."""
    ids: dict[str, Any] = {
        "job_id": site.jobs["succeeded"],
        **site.ids,
        "bulk_id": site.jobs["bulk"],
    }
    filled = re.sub(r"{(\w+)(?::\w+)?}", lambda match: str(ids.get(match[1], "none")), path)
    return filled + QUERIES.get(path, "")


def test_the_table_has_pages() -> None:
    assert {"/", "/login"} <= set(PATHS)


@pytest.fixture(scope="module")
def administrator(browser: Browser, site: Site) -> Iterator[Watched]:
    """A page that is led from path to path: a new one costs as much as all that is looked at in it."""
    context = browser.new_context()
    context.add_cookies([site.log_in()])  # type: ignore[list-item]
    yield watch(context, site.url)
    context.close()


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_right_in_both_themes_at_each_width(
    path: str, site: Site, open_page: OpenPage, administrator: Watched, shots: Path | None
) -> None:
    if path == "/login":
        watched = open_page(path, key=None)
    else:
        watched = administrator
        watched.mistakes.clear()
        watched.show("light", "desk")
        watched.page.goto(site.url + fill_path(path, site))
    if shots is not None:
        for size in SIZES:
            for theme in ("light", "dark"):
                watched.show(theme, size)
                name = path.strip("/").replace("/", "-") or "overview"
                watched.page.screenshot(path=shots / f"{name}-{size}-{theme}.png", full_page=True)
    watched.check()
