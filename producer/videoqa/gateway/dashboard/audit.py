"""The page of the audit log: who changed what, and when."""

from __future__ import annotations

from fastapi import Request, Response

from videoqa.gateway.access.audit import AuditPage
from videoqa.gateway.access.caller import Administrator
from videoqa.gateway.access.keys import ApiKey
from videoqa.gateway.dashboard.frame import PageRouter, show_page, take_snapshot

__all__ = ["router"]

router = PageRouter()
PAGE = 50


@router.get("/audit")
async def show_audit(
    request: Request, caller: Administrator, q: str = "", cursor: str | None = None
) -> Response:
    """Shows the changes by operators and administrators, newest first."""
    resources, text = caller.resources, q.strip()[:200]

    async def read() -> tuple[AuditPage, dict[str, ApiKey]]:
        page = await resources.run(
            resources.audit.find, text=text or None, cursor=cursor, limit=PAGE
        )
        keys = await resources.run(resources.keys.list)
        return page, {key.id: key for key in keys}

    found, keys = await take_snapshot(caller, "audit", read, text, cursor)
    return show_page(request, "audit.html", found=found, keys=keys, text=text, cursor=cursor)
