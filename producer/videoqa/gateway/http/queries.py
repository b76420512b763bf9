"""Query parameters, read strictly: one that a route does not have would be ignored, and its caller would not notice."""

from __future__ import annotations

from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.models import Dependant

from videoqa.errors import InvalidRequest

__all__ = ["check_query"]


async def check_query(request: Request) -> None:
    """Raises InvalidRequest for a parameter that the route does not have, or that comes twice."""
    if not request.query_params:
        return
    known = _list_names(request.scope["route"].dependant)
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1) or known
            raise InvalidRequest(
                f"{name!r:.100}: there is no such parameter here, expected {' or '.join(near) or 'none'}",
                param=name[:100],
            )
        if names.count(name) > 1:
            raise InvalidRequest(
                f"{name}: got it {names.count(name)} times, expected it once", param=name
            )


def _list_names(dependant: Dependant) -> list[str]:
    names = [field.alias for field in dependant.query_params]
    return names + [name for one in dependant.dependencies for name in _list_names(one)]
