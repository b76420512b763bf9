"""Alerts and the board: promtool accepts them, each alert fires and is in the runbook, and all names are declared."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from support.pages import ROOT, anchors_of
from support.prometheus import find_program

from videoqa.telemetry.metrics import ALL_METRICS

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
BOARD = DEPLOY / "grafana" / "videoqa.json"
NAMES = re.findall(r"- alert: (\w+)", ALERTS.read_text())
SERIES = {name for metric in ALL_METRICS for name in metric.series}


def run_promtool(*arguments: str | Path) -> str:
    """Runs promtool; its output is the message where it finds a fault."""
    found = subprocess.run(
        [find_program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_promtool_accepts_the_rules_and_the_configuration(tmp_path: Path) -> None:
    assert f"{len(NAMES)} rules found" in run_promtool("check", "rules", ALERTS)
    (tmp_path / "gateway.key").touch()
    for path in (ALERTS, DEPLOY / "prometheus" / "prometheus.yml"):
        (tmp_path / path.name).write_text(path.read_text())
    run_promtool("check", "config", tmp_path / "prometheus.yml")


def test_each_alert_fires_and_a_healthy_fleet_has_none() -> None:
    tests = ALERTS.with_name("alerts_test.yml")
    fired = re.findall(r'ALERTS\{alertname="(\w+)"', tests.read_text())
    assert sorted(fired) == sorted(NAMES)
    run_promtool("test", "rules", tests)


def test_each_alert_has_a_section_of_the_runbook() -> None:
    links = re.findall(r"runbook_url: (\S+)", ALERTS.read_text())
    page = ROOT / "docs" / "guide" / "runbook.md"
    assert links == [f"{page.relative_to(ROOT)}#{name.lower()}" for name in NAMES]
    assert {name.lower() for name in NAMES} <= anchors_of(page)


@pytest.mark.parametrize("path", [ALERTS, BOARD, ROOT / "docs" / "guide" / "metrics.md"], ids=str)
def test_all_names_are_declared(path: Path) -> None:
    known = SERIES | {metric.name for metric in ALL_METRICS}
    named = set(re.findall(r"\bvideoqa_[a-z_]+(?<!_)", path.read_text()))
    assert named
    assert named <= known


def test_the_board_shows_each_metric() -> None:
    shown = json.loads(BOARD.read_text())["panels"]
    exprs = " ".join(target["expr"] for panel in shown for target in panel.get("targets", ()))
    missing = [
        metric.name
        for metric in ALL_METRICS
        if not any(re.search(rf"\b{name}\b", exprs) for name in metric.series)
    ]
    assert missing == []
