"""Prometheus and Alertmanager of the composition: the real servers with its files, tokens and arguments.

Their versions are Debian's, not those of the images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from composition import (
    DEPLOY,
    PATIENCE,
    answers,
    arguments,
    configured_alertmanager,
    configured_prometheus,
    hand_out,
    health,
    run,
    told,
    tool,
)

PARKED = b'siteward_queue_parked_messages{queue="monitoring"} 2\n'
"""What makes an alert that waits for nothing."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first start makes: a folder for each volume with secrets."""
    return hand_out(tmp_path_factory.mktemp("volumes"))


@contextmanager
def scraped() -> Iterator[tuple[str, set[str]]]:
    """Something to scrape: its host and port, and the tokens that were shown to it."""
    shown: set[str] = set()

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.add(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.send_header("Content-Length", str(len(PARKED)))
            self.end_headers()
            self.wfile.write(PARKED)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name.
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Metrics) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{listening.server_address[1]}", shown
        listening.shutdown()
        thread.join()


def eventually(look: Callable[[], Any], wanted: Any) -> None:
    """Look again and again until there is what is wanted."""
    end = time.monotonic() + PATIENCE
    while (found := look()) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The composition's Alertmanager."""
    with configured_alertmanager(tmp_path_factory.mktemp("alertmanager") / "own") as url:
        yield url


def alerts(url: str) -> dict[str, tuple[str, list[str]]]:
    """State and receivers of each alert that Alertmanager holds, by name."""
    return {
        each["labels"]["alertname"]: (each["status"]["state"], [to["name"] for to in each["receivers"]])
        for each in told(f"{url}/api/v2/alerts")
    }


def test_prometheus_and_alertmanager_run_as_configured(alertmanager: str, volumes: Path, tmp_path: Path) -> None:
    """Prometheus scrapes all with the tokens made for them, its rules' alerts reach Alertmanager, and both are well."""
    with scraped() as (place, shown):
        others = dict.fromkeys(("app:8080", "collector:9469", "rabbitmq:15692"), place)
        places = {**others, "alertmanager:9093": alertmanager.removeprefix("http://")}
        with configured_prometheus(tmp_path / "prometheus", volumes / "prometheus", places) as url:

            def healthy() -> set[tuple[str, str]]:
                found = told(f"{url}/api/v1/targets")["data"]["activeTargets"]
                return {(each["labels"]["job"], each["health"]) for each in found}

            jobs = ("siteward", "siteward-collector", "rabbitmq", "prometheus")
            eventually(healthy, {(job, "up") for job in jobs})
            eventually(lambda: alerts(alertmanager).get("SitewardQueueParked"), ("active", ["operators"]))
            assert answers(health("prometheus")[-1].replace("http://127.0.0.1:9090", url))
            assert answers(health("alertmanager")[-1].replace("http://127.0.0.1:9093", alertmanager))
            (active,) = told(f"{url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
            assert active["url"] == f"{alertmanager}/api/v2/alerts"
    tokens = [(volumes / "prometheus" / name).read_text() for name in ("siteward-token", "metrics-token")]
    assert shown == {"", *(f"Bearer {token}" for token in tokens)}


def test_alertmanager_routes_and_silences_as_configured(alertmanager: str) -> None:
    """What is only to be looked at goes to nobody; what stops the data path silences what follows from it."""
    told(f"{alertmanager}/api/v2/alerts", [{"labels": {"alertname": "SitewardSeriesOverBudget", "severity": "info"}}])
    told(f"{alertmanager}/api/v2/alerts", [{"labels": {"alertname": "SitewardQueueOld", "severity": "warning"}}])
    eventually(lambda: alerts(alertmanager).get("SitewardSeriesOverBudget"), ("active", ["nobody"]))
    told(f"{alertmanager}/api/v2/alerts", [{"labels": {"alertname": "SitewardBrokerGone", "severity": "critical"}}])
    eventually(lambda: alerts(alertmanager).get("SitewardBrokerGone"), ("active", ["operators"]))
    eventually(lambda: alerts(alertmanager).get("SitewardQueueOld"), ("suppressed", ["operators"]))


def test_data_go_where_the_volumes_are() -> None:
    """The arguments of both servers name the files and folders that the tests above replace, and no others."""
    places = {
        place for name in ("prometheus", "alertmanager") for place in re.findall(r"=(/\S+)", " ".join(arguments(name)))
    }
    assert places == {
        "/etc/prometheus/prometheus.yml",
        "/prometheus",
        "/etc/alertmanager/alertmanager.yml",
        "/alertmanager",
    }


def test_prometheus_takes_its_configuration(volumes: Path, tmp_path: Path) -> None:
    """promtool accepts prometheus.yml with the files of its tokens, and the rules that it names."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets", str(volumes / "prometheus")))
    (tmp_path / "rules").symlink_to(DEPLOY / "prometheus" / "rules")
    done = run(tool("promtool"), "check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout
    assert "rules found" in done.stdout


def test_alertmanager_takes_its_configuration() -> None:
    """amtool accepts alertmanager.yml; what is only to be looked at wakes nobody, everything else goes to operators."""
    amtool, file = tool("amtool"), DEPLOY / "alertmanager" / "alertmanager.yml"
    done = run(amtool, "check-config", file)
    assert done.returncode == 0, done.stderr
    for severity, receiver in (("critical", "operators"), ("warning", "operators"), ("info", "nobody")):
        done = run(amtool, "config", "routes", "test", f"--config.file={file}", f"severity={severity}")
        assert done.stdout.strip() == receiver


def test_inhibition_names_alerts_that_exist() -> None:
    """Every alert that silences, or is silenced, is one of the rules."""
    rules = "".join(path.read_text() for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")))
    known = {*re.findall(r"- alert: (\w+)", rules)}
    named = {*re.findall(r"Siteward\w+", (DEPLOY / "alertmanager" / "alertmanager.yml").read_text())}
    assert named
    assert named <= known
