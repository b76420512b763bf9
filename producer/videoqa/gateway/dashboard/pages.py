"""The routers of all pages."""

from __future__ import annotations

from videoqa.gateway.dashboard import (
    ask,
    audit,
    bulk_page,
    dead,
    job_page,
    jobs_page,
    keys,
    login,
    overview,
    queues,
    runs,
    selection_page,
    static_files,
    webhooks,
    workers,
)

__all__ = ["ROUTERS"]

ROUTERS = (
    static_files.router,
    login.router,
    overview.router,
    jobs_page.router,
    selection_page.router,
    bulk_page.router,
    job_page.pictures,
    job_page.router,
    ask.router,
    runs.router,
    dead.router,
    queues.router,
    workers.router,
    webhooks.router,
    keys.router,
    audit.router,
)
