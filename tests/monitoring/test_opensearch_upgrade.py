"""Templates and indices follow the kinds: by themselves where something is added, else by command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from examples import JOB, NOON, batch_of, job_rows
from opensearch_server import VERSIONS, Nodes, Place, free_ports

from monitoring.stores import StoreError
from monitoring.stores.opensearch import open_store, upgrading
from monitoring.stores.opensearch.differences import Contradiction
from siteward.records import Kind, kind_from_table, microseconds
from siteward.settings import MonitoringSettings, Settings
from siteward.sinks import Batch, Outcome, SinkUnavailable

PROGRAM = (sys.executable, "-c", "from siteward.cli import main; main()")
TIME = microseconds(NOON)


def kind(**fields: Any) -> Kind:
    """The kind `thing` with these dimensions, by type."""
    dimensions = {name: {"doc": name, "type": type_} for name, type_ in fields.items()}
    return kind_from_table(
        "thing", {"doc": "A thing.", "shape": "event", "identity": ["name"], "dimensions": dimensions}
    )


def things(of: Kind, count: int, **values: Any) -> Batch:
    """Records of the kind, named by number."""
    given = {"vo": "v", "time": TIME, "simulated": False, "revision": 0, **values}
    columns = {column.name: [given.get(column.name, "")] * count for column in of.columns}
    columns["name"] = [f"n{number}" for number in range(count)]
    ids = [(TIME // 1000).to_bytes(6, "big") + number.to_bytes(10, "big") for number in range(count)]
    return Batch(of, ids, columns, ["p"] * count, [bytes(16)] * count, TIME)


OLD = kind(name="string", colour="string")
NEW = kind(name="string", colour="string", weight="integer")
CHANGED = kind(name="string", colour="integer")
LESS = kind(name="string")


@pytest.fixture
def place(opensearch_nodes: Nodes) -> Any:
    """A place on one version: what differs between versions is tested with what is written."""
    with closing(Place(opensearch_nodes.node(VERSIONS[0]))) as opened:
        yield opened


def fields(place: Place, index: str = "") -> set[str]:
    """The fields of the template, or of an index."""
    if index:
        mappings = place.ask("GET", f"/{index}/_mapping")[index]["mappings"]
    else:
        found = place.ask("GET", f"/_index_template/{place.prefix}-thing")["index_templates"][0]
        mappings = found["index_template"]["template"]["mappings"]
    return set(mappings["properties"])


def test_opening_again_changes_nothing(opensearch: Place) -> None:
    """What was made once is recognised as it should be, whatever the version shows of it."""
    changes: list[str] = []
    for _ in range(2):
        with closing(opensearch.open({"job": JOB, "thing": OLD})) as store:
            store.write(batch_of(JOB, job_rows(2)))
        before = opensearch.ask("GET", f"/_index_template/{opensearch.prefix}-*")
        changes.append(json.dumps(before, sort_keys=True))
    assert changes[0] == changes[1]


def test_a_new_field_is_added_to_what_is_there(opensearch: Place) -> None:
    """A kind that grew is written into old and new indices alike; older records do not know the new value."""
    with closing(opensearch.open({"thing": OLD})) as store:
        store.write(things(OLD, 3))
    with closing(opensearch.open({"thing": NEW})) as store:
        assert store.write(things(NEW, 5, weight=7)).outcomes == [Outcome.DUPLICATE] * 3 + [Outcome.STORED] * 2
        opensearch.refresh()
        assert sorted(str(record.fields["weight"]) for record in store.records("thing")) == [
            "7",
            "7",
            "None",
            "None",
            "None",
        ]
    (index,) = opensearch.indices()
    assert "weight" in fields(opensearch) & fields(opensearch, index)


def test_an_older_collector_takes_nothing_away(place: Place) -> None:
    """While collectors are replaced one by one, the older declaration leaves the newer one's fields alone."""
    for each in (NEW, OLD):
        with closing(place.open({"thing": each})) as store:
            assert store.write(things(each, 1)).outcomes[0] is not Outcome.REJECTED
    assert "weight" in fields(place)


def test_collectors_that_start_together_agree(place: Place) -> None:
    """Several processes may make templates and indices at once; all of them then write."""
    outcomes: list[Outcome] = []

    def start() -> None:
        with closing(place.open({"thing": NEW, "job": JOB})) as store:
            outcomes.extend(store.write(things(NEW, 1, weight=1)).outcomes)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Outcome.DUPLICATE] * 5 + [Outcome.STORED]


def test_a_changed_type_is_refused_at_the_start(opensearch: Place) -> None:
    """A field of another type than the stored one stops the store with field, types and what to do."""
    with closing(opensearch.open({"thing": OLD})) as store:
        store.write(things(OLD, 1))
    with pytest.raises(
        Contradiction, match=r"'colour' is type long now, but type keyword in the index .*--dry-run"
    ) as caught:
        opensearch.open({"thing": CHANGED})
    assert caught.value.permanent


def test_a_changed_retention_moves_no_record(place: Place) -> None:
    """A kind that was filed by month stays so, or a record sent again would count twice."""
    table: dict[str, Any] = {"doc": "A thing.", "shape": "event", "identity": ["name"]}
    table["dimensions"] = {"name": {"doc": "name"}, "colour": {"doc": "colour"}}
    short = kind_from_table("thing", {**table, "retention_days": 7})
    with closing(place.open({"thing": OLD})) as store:
        store.write(things(OLD, 2))
    with closing(place.open({"thing": short})) as store:
        assert store.write(things(short, 3)).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED]
    assert place.indices() == [f"{place.prefix}-thing-2026.03"]


def kept_a_week() -> Kind:
    """The kind of `OLD` where it is new to a cluster: filed by day."""
    table: dict[str, Any] = {"doc": "A thing.", "shape": "event", "identity": ["name"], "retention_days": 7}
    return kind_from_table("thing", table | {"dimensions": {name: {"doc": name} for name in ("name", "colour")}})


@pytest.mark.parametrize(("first", "then"), [(OLD, kept_a_week()), (kept_a_week(), OLD)], ids=["months", "days"])
def test_without_a_template_the_indices_say_the_period(place: Place, first: Kind, then: Kind) -> None:
    """Whoever deletes a template and changes the retention moves no record either."""
    with closing(place.open({"thing": first})) as store:
        store.write(things(first, 2))
    there = place.indices()
    place.ask("DELETE", f"/_index_template/{place.prefix}-thing")
    with closing(place.open({"thing": then})) as store:
        assert store.write(things(then, 3)).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED]
    assert place.indices() == there


def test_collectors_that_start_together_agree_on_the_period(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template of the faster one holds for both, though they know the kind with different retentions."""
    short = kept_a_week()
    look = upgrading.read_present
    faster: list[Any] = []

    def slow(*given: Any) -> Any:
        present = look(*given)
        if not faster:
            faster.append(None)
            faster[0] = place.open({"thing": short})
        return present

    monkeypatch.setattr(upgrading, "read_present", slow)
    with closing(place.open({"thing": OLD})) as slower, closing(faster[0]) as other:
        assert slower.write(things(OLD, 1)).outcomes == [Outcome.STORED]
        assert other.write(things(short, 1)).outcomes == [Outcome.DUPLICATE]
    assert len(place.indices()) == 1


def test_a_copy_of_an_index_is_left_alone(place: Place) -> None:
    """An index that is named like ours but for a period, whatever it holds, hinders nobody."""
    copy = f"{place.prefix}-thing-2026.03-copy"
    with closing(place.open({"thing": OLD})) as store:
        store.write(things(OLD, 1))
    place.ask("PUT", f"/{copy}", {"mappings": {"properties": {"name": {"type": "long"}}}})
    with closing(place.open({"thing": OLD})) as store:
        assert store.write(things(OLD, 1)).outcomes == [Outcome.DUPLICATE]


def test_a_template_that_somebody_deleted_is_made_again(place: Place) -> None:
    """Before a store writes into an index for the first time it looks for the template: the cluster never guesses."""
    with closing(place.open({"thing": OLD})) as store:
        place.ask("DELETE", f"/_index_template/{place.prefix}-thing")
        assert store.write(things(OLD, 1)).outcomes == [Outcome.STORED]
    (index,) = place.indices()
    assert place.ask("GET", f"/{index}/_mapping")[index]["mappings"]["dynamic"] == "strict"


def test_a_cluster_that_is_away_may_come_back() -> None:
    """A store that cannot be opened now may be opened later: the error is not permanent and names the host."""
    (port,) = free_ports(1)
    settings = Settings(monitoring=MonitoringSettings(timeout=2.0))
    with pytest.raises(StoreError, match=rf"127.0.0.1:{port} does not answer") as caught:
        open_store(f"opensearch://127.0.0.1:{port}", settings, {"thing": OLD})
    assert not caught.value.permanent


def test_a_template_that_was_changed_makes_records_wait(place: Place) -> None:
    """Where a template is of another declaration than a running collector's, its records wait, none is rejected."""
    with closing(place.open({"thing": OLD})) as store:
        place.ask("DELETE", f"/_index_template/{place.prefix}-thing")
        with (
            closing(place.open({"thing": CHANGED})),
            pytest.raises(SinkUnavailable, match="siteward stores upgrade"),
        ):
            store.write(things(OLD, 1))


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(place: Place, tmp_path: Path) -> Run:
    """Runs `siteward …` against the place, with the kind `thing` declared in the settings file."""

    def call(declared: Kind, *arguments: str, **monitoring: Any) -> subprocess.CompletedProcess[str]:
        settings = {"url": place.node.url, "prefix": place.prefix, "replicas": "0", **monitoring}
        lines = ["[monitoring]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
        lines += ["[kinds.thing]", 'doc = "A thing."', 'shape = "event"', 'identity = ["name"]', "retention_days = 30"]
        for column in declared.dimensions:
            if column.name not in {"vo", "simulated"}:
                lines += [f"[kinds.thing.dimensions.{column.name}]", 'doc = "x"', f'type = "{column.type}"']
        (tmp_path / "siteward.toml").write_text("\n".join(lines))
        return subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=os.environ | {"SITEWARD_DATA": str(tmp_path / "data")},
            check=False,
        )

    return call


def shown(done: subprocess.CompletedProcess[str]) -> set[tuple[str, str, str]]:
    """Place, field and when it is changed, of the differences of the kind `thing`."""
    rows = json.loads(done.stdout)
    return {(row["place"].partition(" ")[0], row["what"], row["changed"]) for row in rows if "-thing" in row["place"]}


UPGRADE = ("--output", "json", "stores", "upgrade")


def test_upgrade_makes_what_is_missing(place: Place, run: Run) -> None:
    """On an empty cluster a dry run shows every template and makes none; the run makes them; then nothing differs."""
    done = run(OLD, *UPGRADE, "--dry-run")
    assert (done.returncode, shown(done)) == (0, {("template", "all", "at start")})
    assert shown(run(OLD, *UPGRADE)) == {("template", "all", "at start")}
    assert "colour" in fields(place)
    done = run(OLD, *UPGRADE)
    assert (json.loads(done.stdout), done.stderr) == ([], "everything is as it should be\n")


def test_upgrade_follows_the_settings(place: Place, run: Run) -> None:
    """Copies and refresh are changed in templates and in the indices that are there, shards in templates alone."""
    with closing(place.open({"thing": OLD})) as store:
        store.write(things(OLD, 1))
    done = run(OLD, *UPGRADE, refresh=5.0, shards=2, replicas="0-all")
    assert shown(done) == {
        *(
            ("template", name, "by upgrade")
            for name in ("refresh_interval", "number_of_shards", "auto_expand_replicas")
        ),
        *(("index", name, "by upgrade") for name in ("refresh_interval", "auto_expand_replicas")),
    }
    (index,) = place.indices()
    found = place.ask("GET", f"/{index}/_settings")[index]["settings"]["index"]
    assert (found["refresh_interval"], found["auto_expand_replicas"]) == ("5000ms", "0-all")
    assert json.loads(run(OLD, *UPGRADE, refresh=5.0, shards=2, replicas="0-all").stdout) == []


def test_upgrade_changes_a_template_that_has_no_index(place: Place, run: Run) -> None:
    """A type that was changed before the first record was stored is changed by the command, never at a start."""
    with closing(place.open({"thing": OLD})):
        pass
    with pytest.raises(Contradiction, match="and change the template with `siteward stores upgrade`"):
        place.open({"thing": CHANGED})
    assert shown(run(CHANGED, *UPGRADE)) == {("template", "colour", "only by upgrade")}
    with closing(place.open({"thing": CHANGED})) as store:
        assert store.write(things(CHANGED, 1, colour=3)).outcomes == [Outcome.STORED]


def test_upgrade_cannot_change_what_is_stored(place: Place, run: Run) -> None:
    """A type that an index has cannot be changed: the kind is left as it is, and the exit status says so."""
    with closing(place.open({"thing": OLD})) as store:
        store.write(things(OLD, 1))
    for arguments in ((*UPGRADE, "--dry-run"), UPGRADE):
        done = run(CHANGED, *arguments)
        assert done.returncode == 1
        assert ("index", "colour", "never") in shown(done)
        assert "give each changed field a new name" in done.stderr
    with closing(place.open({"thing": OLD})) as store:
        assert store.write(things(OLD, 2)).outcomes == [Outcome.DUPLICATE, Outcome.STORED]


def test_upgrade_drops_fields_that_the_kind_no_longer_has(place: Place, run: Run) -> None:
    """A dropped field leaves the template only by command; the indices that hold it keep it."""
    with closing(place.open({"thing": OLD})) as store:
        store.write(things(OLD, 1))
    with closing(place.open({"thing": LESS})) as store:
        assert store.write(things(LESS, 2)).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    assert "colour" in fields(place)
    assert ("template", "colour", "by upgrade") in shown(run(LESS, *UPGRADE))
    assert "colour" not in fields(place)
    (index,) = place.indices()
    assert "colour" in fields(place, index)


def test_policies_are_printed(run: Run) -> None:
    """Every kind with a retention has a policy as the plugin takes it; one without has none."""
    made = json.loads(run(OLD, "stores", "policy").stdout)
    assert any(name.endswith("-job") for name in made)
    assert not any(name.endswith("-downtime") for name in made)
    (name,) = [name for name in made if name.endswith("-thing")]
    assert json.loads(run(OLD, "stores", "policy", "thing").stdout) == made[name]
    done = run(OLD, "stores", "policy", "downtime")
    assert (done.returncode, done.stdout) == (1, "")
    assert "kept for ever" in done.stderr
    assert "did you mean 'thing'" in run(OLD, "stores", "policy", "thin").stderr


def test_the_embedded_store_needs_no_upgrade(tmp_path: Path) -> None:
    """On DuckDB the command has nothing to do, and says so."""
    done = subprocess.run(
        [*PROGRAM, "stores", "upgrade"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=os.environ | {"SITEWARD_DATA": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to upgrade" in done.stderr
