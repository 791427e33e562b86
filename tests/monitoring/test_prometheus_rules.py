"""The shipped prometheus.yml with its rules in a real Prometheus that scrapes a collector."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from composition import DEPLOY, configured_prometheus, free_ports, told
from examples import job
from prometheus_server import collector, until

from monitoring.prometheus import counters
from monitoring.prometheus.promql import PromQL
from siteward.emit import Emitter
from siteward.kinds.data_operation import DataOperation
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.settings import CollectorSettings, PrometheusSettings, Settings

TOKEN = "correct-horse-battery-staple-0123456789"
RULES = [path.read_text(encoding="utf-8") for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))]


def named(what: str) -> list[str]:
    """Names of groups, alerts or records in the rules that we ship."""
    return sorted(name for text in RULES for name in re.findall(rf"^ *- {what}: (\S+)$", text, re.MULTILINE))


def emit(settings: Settings, first: int) -> None:
    """What a grid tells in a moment: jobs and transfers, good and failed, and what a storage holds."""
    now = datetime.now(UTC)
    start = now - timedelta(hours=1)
    with Emitter(settings, producer="test") as emitter:
        for number in range(first, first + 10):
            state = ("completed", "failed")[number % 2]
            emitter.emit(
                job(
                    number,
                    start=start,
                    end=now,
                    state=state,
                    wall_time=3600,
                    cpu_time=1800,
                    processors=1,
                    queue_time=60,
                )
            )
            emitter.emit(
                DataOperation(
                    vo="v",
                    start=start,
                    end=now,
                    reference=str(number),
                    operation="transfer",
                    source="A",
                    destination="B",
                    state=("done", "failed")[number % 2],
                    size=2**30,
                    files_total=1,
                )
            )
        emitter.emit(
            StorageOccupancy(
                vo="v", producer="p", time=now, cycle_size=1, site="A", endpoint="e", storage="s", total=4, used=1
            )
        )


def rules(url: str) -> list[dict[str, Any]]:
    """Every rule as the server has it."""
    return [rule for group in told(f"{url}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]


def test_the_rules_that_we_ship_run_on_what_a_collector_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group is loaded, every rule is healthy, every recording rule has a value, and known ones are right."""
    monkeypatch.setattr(counters, "SETTLE", 0)
    port, nobody = free_ports(2)
    settings = Settings(
        data=str(tmp_path / "data"),
        collector=CollectorSettings(leave_out=("monitoring",)),
        prometheus=PrometheusSettings(port=port, token=TOKEN),
    )
    (tmp_path / "secrets").mkdir()
    for name in ("siteward-token", "metrics-token"):
        (tmp_path / "secrets" / name).write_text(TOKEN)
    here, away = f"127.0.0.1:{port}", f"127.0.0.1:{nobody}"
    # Emitter and collector are one process here, and so is what the application would show of them.
    places = {"app:8080": here, "collector:9469": here, "rabbitmq:15692": away, "alertmanager:9093": away}
    with (
        collector(settings),
        configured_prometheus(tmp_path / "prometheus", tmp_path / "secrets", places) as url,
    ):
        until(lambda: PromQL(url).instant('up{job="siteward-collector"} == 1').series)
        for first in range(0, 50, 10):
            emit(settings, first)
            time.sleep(1)

        def valued(expression: str) -> set[float]:
            return {series.last.value for series in PromQL(url).instant(expression).series}

        records = named("record")
        until(lambda: all(valued(name) for name in records))
        assert valued("siteward:storage_occupancy_used:ratio") == {0.25}
        until(lambda: [*valued("siteward:job_cpu_efficiency:ratio_rate1h")] == [pytest.approx(0.5)])
        until(lambda: max(valued("siteward:job_records:rate5m")) > 0)
        found = rules(url)
        groups = told(f"{url}/api/v1/rules")["data"]["groups"]
    assert sorted(group["name"] for group in groups) == named("name")
    assert sorted(rule["name"] for rule in found) == sorted(named("alert") + records)
    assert {(rule["health"], rule.get("lastError", "")) for rule in found} == {("ok", "")}
