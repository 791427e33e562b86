"""The compose file, as Docker Compose's own reader takes it: what it runs, with which rights, files and secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from composition import (
    DEPLOY,
    build_reader,
    credentials,
    hand_out,
    mounts,
    read_project,
    run,
)
from servers import REPOSITORY

FILE: Final = REPOSITORY / "docker-compose.yml"
ONCE: Final = "credentials"
"""The one service that ends; all others run until they are stopped."""
SERVICES: Final = {
    ONCE,
    "alertmanager",
    "app",
    "collector",
    "grafana",
    "opensearch",
    "opensearch-dashboards",
    "postgresql",
    "prometheus",
    "rabbitmq",
}
ADDED: Final = ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
"""Capabilities of the one service that gives files to their owners, which only root can."""
HEALTH: Final = {
    "alertmanager": {"wget"},
    "app": {"python"},
    "collector": {"find", "grep"},
    "grafana": {"wget"},
    "opensearch": {"curl", "test"},
    "opensearch-dashboards": {"curl", "grep"},
    "postgresql": {"pg_isready"},
    "prometheus": {"wget"},
    "rabbitmq": {"rabbitmq-diagnostics"},
}
"""The programs of each health check. find and grep are essential in Debian, whose Python image ours is built on."""
PINNED: Final = re.compile(r"^[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?$")
SECRET: Final = re.compile(r"/run/secrets/([\w.-]+)")
Project = dict[str, Any]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program on compose-go."""
    return build_reader(tmp_path_factory.mktemp("compose-go"))


@pytest.fixture(scope="module")
def project(reader: Path) -> Project:
    """The composition as Docker Compose reads it."""
    return read_project(reader, FILE)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first start makes: a folder for each volume with secrets."""
    return hand_out(tmp_path_factory.mktemp("volumes"))


def test_compose_file_is_valid(project: Project) -> None:
    """Docker Compose's own reader takes the file: schema, references, variables; it holds what the issue asks for."""
    assert {*project["services"]} == SERVICES


def test_a_wrong_compose_file_is_refused(reader: Path, tmp_path: Path) -> None:
    """The reader bites: an unknown key and a volume that nobody declares are errors."""
    wrong = tmp_path / "docker-compose.yml"
    for text in ("  a: {image: b, memory_limt: 1g}\n", "  a: {image: b, volumes: ['data:/data']}\n"):
        wrong.write_text(f"services:\n{text}")
        assert run(reader, wrong).returncode == 1


def test_every_mounted_file_exists(project: Project) -> None:
    """Whatever is mounted from the repository is there and cannot be written; a missing file would become a folder."""
    bound = [mount for service in project["services"].values() for mount in mounts(service) if mount["type"] == "bind"]
    assert bound
    for mount in bound:
        assert Path(mount["source"]).is_relative_to(DEPLOY)
        assert Path(mount["source"]).exists(), mount["source"]
        assert mount["read_only"]


def test_services_have_no_more_rights_than_they_need(project: Project) -> None:
    """No capability and no root but where files are given away, no new privileges, a bound on whatever is shared."""
    for name, service in project["services"].items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        assert service.get("cap_add", []) == (ADDED if name == ONCE else [])
        assert {*service["deploy"]["resources"]["limits"]} == {"cpus", "memory", "pids"}
        if name != ONCE:
            assert int(service["user"].partition(":")[0]) > 0
    once = project["services"][ONCE]
    assert (once["user"], once["network_mode"], once["read_only"]) == ("0:0", "none", True)


def test_services_say_whether_they_are_well(project: Project) -> None:
    """Every service that stays has a health check that runs and can fail, and is started again, after the secrets."""
    for name, service in project["services"].items():
        if name == ONCE:
            continue
        check = service.get("healthcheck") or (health_of_image() if name == "app" else {})
        assert not check.get("disable"), name
        assert 0 < seconds(check["timeout"]) <= 30
        assert seconds(check["timeout"]) <= 2 * seconds(check["interval"]) <= 60
        assert 0 < seconds(check["start_period"]) <= 120
        assert 2 <= check["retries"] <= 10
        form, *words = check["test"]
        shell = re.findall(r"(?:^|\$\(|\| )([a-z_-]+) ", words[0]) if form == "CMD-SHELL" else [words[0]]
        assert form in {"CMD", "CMD-SHELL"}
        assert {*shell} == HEALTH[name]
        assert service["restart"] == "unless-stopped"
        if any("/run/secrets" in mount["target"] or "credentials" in mount["source"] for mount in mounts(service)):
            assert service["depends_on"][ONCE]["condition"] == "service_completed_successfully"


def seconds(text: str) -> int:
    """A duration as Compose and Docker write it, such as 1m30s."""
    assert re.fullmatch(r"(\d+m)?(\d+s)?", text)
    return sum(int(number) * {"m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([ms])", text))


def health_of_image() -> dict[str, Any]:
    """The health check that our own image brings, in the words of a composition."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK (--.+) \\\n +CMD (\[.+\])$", text, re.MULTILINE)
    assert found
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", found[1]))
    retries = int(options.pop("retries"))
    named = {name.replace("-", "_"): value for name, value in options.items()}
    return named | {"retries": retries, "test": ["CMD", *json.loads(found[2])]}


def test_images_are_pinned(project: Project) -> None:
    """Every image has a full version; our own is built once, from the Dockerfile, and fetched from nowhere."""
    for name, service in project["services"].items():
        if service["image"] == "siteward:local":
            assert service["pull_policy"] == ("build" if name == ONCE else "never")
        else:
            assert PINNED.match(service["image"]), service["image"]
    assert [name for name, service in project["services"].items() if "build" in service] == [ONCE]
    search, boards = (
        project["services"][name]["image"].split(":")[1] for name in ("opensearch", "opensearch-dashboards")
    )
    assert search.split(".")[:2] == boards.split(".")[:2]


def test_only_pages_are_published_and_only_here(project: Project) -> None:
    """Nothing but the pages that ask for a password is published, and that on 127.0.0.1; stores cannot reach out."""
    published = {
        name: [(port["host_ip"], port["target"]) for port in service["ports"]]
        for name, service in project["services"].items()
        if service.get("ports")
    }
    assert published == {
        "app": [("127.0.0.1", 8080)],
        "grafana": [("127.0.0.1", 3000)],
        "opensearch-dashboards": [("127.0.0.1", 5601)],
        "rabbitmq": [("127.0.0.1", 15672)],
    }
    open_networks = [name for name, network in project["networks"].items() if not network.get("internal")]
    assert open_networks == ["outside"]
    inside = {name for name, service in project["services"].items() if "outside" not in service.get("networks", {})}
    assert inside == {ONCE, "collector", "opensearch", "postgresql", "prometheus"}


def test_no_secret_stands_in_the_environment(project: Project) -> None:
    """Passwords and tokens come as files: no variable and no argument holds one."""
    for service in project["services"].values():
        for name in service.get("environment") or {}:
            assert name.endswith("_FILE") or not re.search("PASS|SECRET|TOKEN|KEY", name, re.IGNORECASE)
        words = [*(service.get("command") or []), *(service.get("entrypoint") or [])]
        assert not [word for word in words if re.search("(password|token|secret)[= ]", word, re.IGNORECASE)]


def test_each_secret_belongs_to_who_reads_it(project: Project) -> None:
    """A volume with secrets is mounted, read only, by services that run as the user to whom its files are given."""
    made = {
        Path(mount["target"]).name: mount["source"]
        for mount in mounts(project["services"][ONCE])
        if mount["type"] == "volume" and mount["source"] != "vault"
    }
    owners = {name: f"{user}:{group}" for name, (user, group) in credentials().OWNERS.items()}
    assert {*made} == {*owners}
    for name, source in made.items():
        readers = [
            (service["user"], mount.get("read_only"), mount["volume"].get("nocopy"))
            for key, service in project["services"].items()
            for mount in mounts(service)
            if mount["source"] == source and key != ONCE
        ]
        assert {*readers} == {(owners[name], True, True)}, name
    assert [
        key for key, service in project["services"].items() for mount in mounts(service) if mount["source"] == "vault"
    ] == [ONCE]


def test_every_secret_that_is_asked_for_is_made(project: Project, volumes: Path) -> None:
    """Whatever file below /run/secrets a configuration or an argument names is in the volume mounted there."""
    for name, service in project["services"].items():
        if name == ONCE:
            continue
        texts = [*(service.get("command") or []), *(service.get("environment") or {}).values()]
        made: set[str] = set()
        for mount in mounts(service):
            if mount["type"] == "bind":
                paths = [path for path in [Path(mount["source"]), *Path(mount["source"]).rglob("*")] if path.is_file()]
                texts += [path.read_text(encoding="utf-8") for path in paths]
            elif mount["target"] == "/run/secrets":
                made |= {path.name for path in (volumes / volume_of(project, mount["source"])).iterdir()}
        assert {secret for text in texts for secret in SECRET.findall(text)} <= made, name


def volume_of(project: Project, source: str) -> str:
    """The name under which the service `credentials` knows a volume."""
    (target,) = [mount["target"] for mount in mounts(project["services"][ONCE]) if mount["source"] == source]
    return Path(target).name


def test_services_reach_whom_they_name(project: Project) -> None:
    """Every host in a configuration file is a service on a network that the reader of the file is on, too."""
    named = {
        "app": (r"(?:@|//)([a-z]+):\d", "siteward/siteward.toml"),
        "collector": (r"(?:@|//)([a-z]+):\d", "siteward/siteward.toml"),
        "grafana": (r"url: http://([a-z-]+):\d", "grafana/provisioning/datasources/siteward.yml"),
        "opensearch-dashboards": (r"https://([a-z-]+):\d", "opensearch/opensearch_dashboards.yml"),
        "prometheus": (r"(?:targets|names): \[([a-z]+)[:\]]", "prometheus/prometheus.yml"),
    }
    for name, (pattern, file) in named.items():
        hosts = {*re.findall(pattern, (DEPLOY / file).read_text(encoding="utf-8"))} - {"localhost"}
        assert hosts
        for host in hosts:
            shared = {*project["services"][name]["networks"]} & {*project["services"][host]["networks"]}
            assert shared, f"{name} names {host}"


def test_collectors_health_is_a_fresh_sign_of_life(project: Project, tmp_path: Path) -> None:
    """The collector is well while its own counters are fresh, and not when they are old or another one's."""
    (_, check) = project["services"]["collector"]["healthcheck"]["test"]
    check = check.replace("/var/lib/siteward/telemetry", str(tmp_path))

    def well() -> bool:
        return subprocess.run(["sh", "-c", check], env={**os.environ, "HOSTNAME": "abc"}, check=False).returncode == 0

    (tmp_path / "collector-xyz.json").touch()
    assert not well()
    sign = tmp_path / "collector-abc.json"
    sign.touch()
    assert well()
    os.utime(sign, (time.time() - 60, time.time() - 60))
    assert not well()


def test_image_holds_our_packages() -> None:
    """The Dockerfile copies every package of the wheel and nothing that .dockerignore keeps back; both stages agree."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    copied = [name.rstrip("/") for line in lines for name in line.split()]
    assert all((REPOSITORY / name).exists() for name in copied)
    ignore = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == {*copied}
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert {*table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]} <= {*copied}
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert len({*bases}) == 1
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "--require-hashes" in text


def test_image_installs_what_its_services_need() -> None:
    """The lock file that the image installs has every library of the extra `server`, those of the engines too."""
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = table["project"]["dependencies"] + table["project"]["optional-dependencies"]["server"]
    lock = (REPOSITORY / "requirements" / "run.lock").read_text(encoding="utf-8")
    pinned = {*re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)}
    assert {re.split(r"[<>=[]", name)[0] for name in wanted} - pinned == set()
