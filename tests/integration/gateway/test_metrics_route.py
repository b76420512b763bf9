"""The gateway's /metrics: who may read it, routes by their templates, and what is left of it without Redis."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from support.gateway import make_key, serve_gateway
from support.metrics import read_series

from videoqa.settings import Settings
from videoqa.telemetry.metrics.gateway import FLEET_METRICS
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer

FLEET = {metric.name for metric in FLEET_METRICS}


def test_without_redis_there_is_no_series_of_the_fleet(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, port=free_port())
    settings = Settings(redis_url=server.url)
    try:
        with serve_gateway(settings) as gateway, httpx.Client(base_url=gateway.url) as http:
            own = {"authorization": f"Bearer {make_key(settings, 'read')}"}
            tenants = {"authorization": f"Bearer {make_key(settings, 'read', tenant='a')}"}
            unseen = {"authorization": f"Bearer {make_key(settings, 'read')}"}
            assert http.get("/metrics").status_code == 401
            assert http.get("/metrics", headers=tenants).status_code == 403
            http.get("/v1/jobs/job_1", headers=own)
            series, kinds = read_series(http.get("/metrics", headers=own).text)
            assert kinds.keys() > FLEET
            assert series["videoqa_redis_up", ()] == 1
            asked = {"route": "/v1/jobs/{job_id}", "method": "GET", "status": "4xx"}
            assert series["videoqa_http_requests_total", tuple(sorted(asked.items()))] == 1
            server.stop()
            time.sleep(1.1)  # what was read and checked is given again for a second
            begun = time.monotonic()
            answer = http.get("/metrics", headers=own, timeout=30)
            assert answer.status_code == 200, answer.text
            series, kinds = read_series(answer.text)
            assert series["videoqa_redis_up", ()] == 0
            assert not kinds.keys() & FLEET
            assert "videoqa_http_requests_total" in kinds
            assert time.monotonic() - begun < 5
            stranger = http.get("/metrics", headers=unseen)
            assert read_series(stranger.text)[0] == {("videoqa_redis_up", ()): 0}
    finally:
        server.stop()
