"""Templates: Jinja2 with our filters, and the values that every page has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from videoqa import __version__
from videoqa.gateway.access.keys import ApiKey
from videoqa.gateway.dashboard import charts, formats
from videoqa.gateway.dashboard.forms import TOKEN, make_token
from videoqa.gateway.dashboard.links import make_link
from videoqa.gateway.dashboard.navigation import list_links
from videoqa.gateway.dashboard.static_files import VERSION
from videoqa.gateway.dashboard.texts import TextBudget

__all__ = ["PageValues", "render", "render_block"]

_current: ContextVar[PageValues] = ContextVar("page")


@dataclass(frozen=True)
class PageValues:
    """The reader, the request and the time of one page."""

    request: Request
    key: ApiKey | None
    """The reader's key; None: nobody is logged in."""
    now: datetime
    """The time of Redis."""

    @property
    def path(self) -> str:
        """Returns the path without prefix."""
        return str(self.request.scope["path"])

    @property
    def here(self) -> str:
        """Returns the address of this page, with its query."""
        query = self.request.url.query
        path = quote(self.path.lstrip("/"), safe="/:@!$'()*,;=+-._~")
        return f"{make_link(self.request, '/')}{path}" + (f"?{query}" if query else "")

    @property
    def has_session(self) -> bool:
        """Tells if the reader has logged in, and may log out."""
        kind, _ = self.request.scope["state"].get("credential", ("open", ""))
        return self.key is not None and kind == "session"

    @property
    def theme(self) -> str:
        """Returns the theme that the reader has chosen; empty: the system's."""
        chosen = self.request.cookies.get("videoqa_theme", "")
        return chosen if chosen in ("light", "dark") else ""

    @property
    def zone(self) -> str:
        """Returns `utc` if the reader wants times in it."""
        return "utc" if self.request.cookies.get("videoqa_times") == "utc" else "local"


def _link(path: str, /, **values: Any) -> str:
    return make_link(_current.get().request, path, **values)


def _has_page(path: str) -> bool:
    """Tells if the app has a page that the reader may use."""
    page = _current.get()
    return any(link.path == path for link in list_links(page.request.app, page.key))


def _link_static(name: str) -> str:
    return _link("/static/{version}/{name}", version=VERSION, name=name)


def _make_live(name: str, every_s: float = 3) -> Markup:
    """Returns the attributes of a region that asks for the block of its name."""
    return Markup(
        'id="{0}" data-live="{1:g}" hx-get="{2}" hx-trigger="poll" hx-target="#{0}" hx-swap="morph:innerHTML"'
    ).format(name, every_s, _current.get().here)


def _make_token_field() -> Markup:
    token = make_token(_current.get().request)
    return Markup('<input type="hidden" name="{}" value="{}">').format(TOKEN, token)


def _count_age_s(at: datetime | float) -> float:
    return max(0.0, (_current.get().now - _to_time(at)).total_seconds())


def _to_time(at: datetime | float) -> datetime:
    return at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)


def _to_iso(at: datetime | float) -> str:
    return _to_time(at).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write_attributes(given: Mapping[str, Any]) -> Markup:
    """Returns attributes: `_` in names is a hyphen, True stands without a value, None and False are left out."""
    found: Iterable[Markup] = (
        Markup(" {}").format(name.strip("_").replace("_", "-"))
        if value is True
        else Markup(' {}="{}"').format(name.strip("_").replace("_", "-"), value)
        for name, value in given.items()
        if value is not None and value is not False
    )
    return Markup("").join(found)


@cache
def _load() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "count": formats.format_count,
        "bytes": formats.format_bytes,
        "duration": formats.format_duration,
        "age": formats.format_age,
        "percent": formats.format_percent,
        "utc": lambda at: formats.format_time(_to_time(at)),
        "iso": _to_iso,
        "address": formats.format_address,
        "prose": formats.format_prose,
        "attributes": _write_attributes,
    }
    environment.globals |= {
        "url": _link,
        "has_page": _has_page,
        "static": _link_static,
        "live": _make_live,
        "token_field": _make_token_field,
        "age_of": _count_age_s,
        "budget": TextBudget,
        "draw_bar": charts.draw_bar,
        "draw_spark": charts.draw_spark,
        "draw_columns": charts.draw_columns,
        "draw_stack": charts.draw_stack,
        "version": __version__,
    }
    environment.globals["ui"] = environment.get_template("macros.html").module
    return environment


def _make_context(page: PageValues, context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "page": page,
        "navigation": list_links(page.request.app, page.key),
        "notice": None,
        **context,
    }


def render(name: str, page: PageValues, context: Mapping[str, Any]) -> str:
    """Renders a template in the layout."""
    token = _current.set(page)
    try:
        return _load().get_template(name).render(_make_context(page, context))
    finally:
        _current.reset(token)


def render_block(name: str, block: str, page: PageValues, context: Mapping[str, Any]) -> str | None:
    """Renders one block of a template; None if it has none of this name, or if it is one of the layout."""
    template = _load().get_template(name)
    found = template.blocks.get(block)
    if found is None or block in _load().get_template("layout.html").blocks:
        return None
    token = _current.set(page)
    try:
        return "".join(found(template.new_context(_make_context(page, context))))
    finally:
        _current.reset(token)
