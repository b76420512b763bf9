"""The navigation: links to the pages that the app has and the key may use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from videoqa.gateway.access.caller import Needs
from videoqa.gateway.access.keys import ApiKey

__all__ = ["NavigationLink", "list_links", "make_navigation"]

_PAGES = (
    ("/", "Overview", "overview"),
    ("/jobs", "Jobs", "jobs"),
    ("/ask", "Ask", "ask"),
    ("/runs", "Archive runs", "runs"),
    ("/dead", "Dead letters", "dead"),
    ("/queues", "Queues", "queues"),
    ("/workers", "Workers", "workers"),
    ("/webhooks", "Webhooks", "webhooks"),
    ("/keys", "Keys", "keys"),
    ("/audit", "Audit", "audit"),
    ("/docs", "API", "docs"),
)
"""Path, words and icon of each, in their order; those that the app lacks are left out."""


@dataclass(frozen=True)
class NavigationLink:
    """A link of the navigation, and the rights that its page asks for."""

    path: str
    words: str
    icon: str
    needs: tuple[Needs, ...]

    def may_be_used(self, key: ApiKey | None) -> bool:
        """Tells if the page would let the key in; None: nobody is logged in."""
        if key is None:
            return not self.needs
        is_tenants = key.tenant is not None
        return all(key.may(one.role) and not (one.all_tenants and is_tenants) for one in self.needs)


def make_navigation(app: FastAPI) -> tuple[NavigationLink, ...]:
    """Makes the links of an app's pages, with the rights from its table of routes."""
    needs = {
        str(route.path): tuple(_find_needs(getattr(route, "dependant", None)))
        for route in iter_route_contexts(app.routes)
        if "GET" in (route.methods or ())
    }
    return tuple(
        NavigationLink(path, words, icon, needs[path])
        for path, words, icon in _PAGES
        if path in needs
    )


def _find_needs(dependant: Any) -> Iterator[Needs]:
    for each in () if dependant is None else dependant.dependencies:
        if isinstance(each.call, Needs):
            yield each.call
        yield from _find_needs(each)


def list_links(app: FastAPI, key: ApiKey | None) -> list[NavigationLink]:
    """Lists the links for a key."""
    return [link for link in app.state.navigation if link.may_be_used(key)]
