"""Each query of the board and each series of the alerts has data in a Prometheus that scrapes a real run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from support.metrics import running_fleet
from support.pages import ROOT
from support.processes import wait_until, wait_until_holds
from support.prometheus import Prometheus, find_program, running_prometheus

from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer

DEPLOY = ROOT / "deploy"
CONFIG = """
global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: videoqa-gateway
    authorization: {{ credentials: "{key}" }}
    static_configs: [{{ targets: ["{gateway}"] }}]
  - job_name: videoqa-worker
    static_configs: [{{ targets: ["{worker}"] }}]
"""
TWICE = "min(count_over_time(up[1m])) >= 2 and min(up) == 1"
"""Both processes were scraped twice, so that counters have rates."""


def list_queries() -> list[str]:
    """Lists the queries of the board, with a window in the place of Grafana's variable."""
    board = json.loads((DEPLOY / "grafana" / "videoqa.json").read_text())
    return [
        target["expr"].replace("$__rate_interval", "1m")
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def list_selectors(expr: str) -> list[str]:
    """Lists the series that the condition of an alert looks at; there are none that meet it."""
    found = re.findall(r"(\b(?:up|videoqa_\w+)(?:{[^}]*})?)", expr)
    # The run has failures of another code, and no error of the gateway.
    return [re.sub(r"{(code|status)=[^}]*}", "", each) for each in found]


def test_each_query_has_data(redis_server: RedisServer, tmp_path: Path) -> None:
    find_program("prometheus")
    settings = Settings(redis_url=redis_server.url, prefix="prometheus")
    with running_fleet(settings, tmp_path) as fleet:
        config = CONFIG.format(
            rules=DEPLOY / "prometheus" / "alerts.yml",
            key=fleet.key,
            gateway=fleet.gateway_url.removeprefix("http://"),
            worker=fleet.worker_url.removeprefix("http://"),
        )
        with running_prometheus(tmp_path / "prometheus", config) as prometheus:
            wait_until(lambda: bool(prometheus.query(TWICE)))
            fleet.run_jobs(succeeding=2)
            failed = 'max(increase(videoqa_job_failures_total{code!=""}[1h])) > 0'
            wait_until(lambda: bool(prometheus.query(failed)))
            queries = list_queries()
            assert len(queries) > 60
            check_data(prometheus, queries)
            rules = prometheus.list_rules()
            assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
            selectors = {each for rule in rules for each in list_selectors(rule["query"])}
            assert len(selectors) > 15
            check_data(prometheus, selectors)


def check_data(prometheus: Prometheus, queries: Iterable[str]) -> None:
    """Checks that each query finds something at some time: a scrape that came too late leaves a gap."""
    missing = set(queries)

    def check() -> None:
        missing.difference_update([each for each in missing if prometheus.query(each)])
        assert missing == set()

    wait_until_holds(check)
