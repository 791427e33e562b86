"""Topologies: what values belong to, from when to when, without contradictions; as files and from the shell."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from accounted import ran

from accounting.topology.attributes import Entry, Topology, TopologyError, past_changes, replaced
from accounting.topology.topology_file import COLUMNS, parse_topology
from siteward.settings import Settings

DAY = 86_400
TOML = """
[[site]]
value = "SITE-A"
country = "CH"
federation = "old"
to = 2026-04-01

[[site]]
value = "SITE-A"
country = "CH"
federation = "new"
from = 2026-04-01T02:00:00+02:00

[[site]]
value = "SITE-B"
country = "FR"
"""
APRIL = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())
ENTRIES = [
    Entry("site", "SITE-A", "country", "CH", None, APRIL),
    Entry("site", "SITE-A", "federation", "old", None, APRIL),
    Entry("site", "SITE-A", "country", "CH", APRIL, None),
    Entry("site", "SITE-A", "federation", "new", APRIL, None),
    Entry("site", "SITE-B", "country", "FR", None, None),
]


def test_entries_are_half_open() -> None:
    """The day of a move belongs to the new one; a value that nobody named belongs to nothing."""
    topology = Topology(ENTRIES)
    key = ("site", "SITE-A", "federation")
    assert [topology.at(key, second) for second in (0, APRIL - 1, APRIL)] == ["old", "old", "new"]
    assert topology.at(("site", "SITE-B", "federation"), 0) is None
    assert topology.attributes == {"site": ("country", "federation")}
    assert topology.changes("site", "federation") == [APRIL]


@pytest.mark.parametrize(
    ("entries", "hint"),
    [
        (
            [Entry("site", "A", "tier", "1", 5 * DAY + 60)],
            "from 1970-01-06T00:01:00+00:00 is not the start of a UTC day",
        ),
        ([Entry("site", "A", "tier", "1", None, 1)], "to 1970-01-01T00:00:01+00:00 is not the start of a UTC day"),
        ([Entry("site", "A", "tier", "1", 2 * DAY, 2 * DAY)], "is valid to 1970-01-03, not after 1970-01-03"),
        (
            [Entry("site", "A", "tier", "1", None, 3 * DAY), Entry("site", "A", "tier", "2", 2 * DAY)],
            "site 'A', tier: '1' is valid until 1970-01-04 already",
        ),
        ([Entry("site", "A", "tier", "1"), Entry("site", "A", "tier", "2", 2 * DAY)], "is valid until ever already"),
    ],
)
def test_contradictions_are_refused(entries: list[Entry], hint: str) -> None:
    """Moves take effect at UTC midnights, since buckets lie within days; nothing belongs to two at once."""
    with pytest.raises(TopologyError) as caught:
        Topology(entries)
    assert hint in str(caught.value)


def test_the_past_is_what_was_said_of_it() -> None:
    """An end in the past, another value or silence rewrites it; what nobody knew does not, nor what is to come."""
    old = Topology(ENTRIES)
    now = APRIL + 30 * DAY

    def changes(*entries: Entry) -> list[str]:
        return past_changes(old, replaced(old, entries), now)

    countries = [entry for entry in ENTRIES if entry.attribute == "country"]
    assert changes(*countries) == []
    assert changes(Entry("site", "SITE-A", "country", "CH"), countries[-1]) == []
    assert changes(*countries, Entry("site", "SITE-C", "country", "IT")) == []
    later = [Entry("site", "SITE-B", "country", "FR", None, now), Entry("site", "SITE-B", "country", "DE", now)]
    assert changes(*countries[:2], *later) == []
    assert changes(*countries[:2]) == ["site 'SITE-B', country: 'FR' becomes unknown from always on"]
    assert changes(*countries[:2], Entry("site", "SITE-B", "country", "FR", None, APRIL)) == [
        "site 'SITE-B', country: 'FR' becomes unknown from 2026-04-01 on"
    ]


def test_what_was_unknown_of_closed_months_is_the_past_too() -> None:
    """A new entry is told once, from the first closed day of which nothing was said; open days may be filled."""
    march, may = APRIL - 31 * DAY, APRIL + 30 * DAY
    old = Topology(ENTRIES)
    closed = {"site": [(march, APRIL), (APRIL, may)]}

    def changes(*entries: Entry) -> list[str]:
        kept = [each for each in ENTRIES if each.attribute == entries[0].attribute]
        return past_changes(old, replaced(old, [*kept, *entries]), may + 30 * DAY, closed)

    of_c = "site 'SITE-C', country: what was unknown becomes 'IT' from"
    assert changes(Entry("site", "SITE-C", "country", "IT")) == [f"{of_c} 2026-03-01 on, in a closed month"]
    assert changes(Entry("site", "SITE-C", "country", "IT", APRIL)) == [f"{of_c} 2026-04-01 on, in a closed month"]
    assert changes(Entry("site", "SITE-C", "country", "IT", may)) == []
    assert changes(Entry("site", "SITE-C", "country", "IT", None, march)) == []
    assert changes(Entry("storage", "SE", "country", "IT")) == []
    ended = Topology([Entry("site", "A", "tier", "1", None, APRIL + DAY)])
    longer = Topology([Entry("site", "A", "tier", "1")])
    assert past_changes(ended, longer, may, closed) == [
        "site 'A', tier: what was unknown becomes '1' from 2026-04-02 on, in a closed month"
    ]
    assert past_changes(ended, longer, may) == []


def test_files_say_the_same() -> None:
    """TOML has a table for each value and time, CSV a line for each entry."""
    lines = [",".join(COLUMNS), "site,SITE-A,country,CH,,2026-04-01", "site,SITE-A,federation,old,,2026-04-01"]
    lines += ["site,SITE-A,country,CH,2026-04-01,", "site,SITE-A,federation,new,2026-04-01T00:00:00Z,"]
    lines += ["site,SITE-B,country,FR,,", ""]
    assert parse_topology(TOML, "toml", ["vo", "site"]) == ENTRIES
    assert parse_topology("\n".join(lines), "csv", ["vo", "site"]) == ENTRIES


def test_csv_has_values_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Line breaks in quotes, and what elsewhere ends a line, are part of a value, however the lines themselves end."""
    names = ["A\nB", "A\r\nB", "A\u2028B", "A\x0bB\x85", 'A"B,']
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    text = "\r\n".join([",".join(COLUMNS), *(f"site,{name},tier,{name},," for name in quoted), ""])
    due = [Entry("site", name, "tier", name) for name in names]
    assert parse_topology(text, "csv", ["site"]) == due
    wrong = f"{','.join(COLUMNS)}\nsite,{quoted[0]},tier,1,,\nsite,A,tier,1,soon,"
    with pytest.raises(TopologyError, match="line 4: 'soon' is not a date"):
        parse_topology(wrong, "csv", ["site"])
    file = tmp_path / "sites.csv"
    file.write_bytes(text.encode())
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 0
    capsys.readouterr()
    assert ran(monkeypatch, settings, "--output", "json", "topology", "list") == 0
    assert {each["value"] for each in json.loads(capsys.readouterr().out)} == set(names)


@pytest.mark.parametrize(
    ("form", "text", "hint"),
    [
        ("toml", "nonsense", "not TOML"),
        ("toml", "site = 1", "write [[site]]"),
        ("toml", '[[sites]]\nvalue="A"\ncountry="CH"', "'sites' is not a dimension in the ledger's buckets"),
        ("toml", '[[site]]\ncountry="CH"', "[[site]] number 1: has no value"),
        ("toml", '[[site]]\nvalue="A"', "has no attribute"),
        ("toml", '[[site]]\nvalue="A"\ntier=1', "tier is 1; write it as a text"),
        ("toml", '[[site]]\nvalue="A"\nTier="1"', "attribute 'Tier': write a name in lower case"),
        ("toml", '[[site]]\nvalue="A"\ntier=""', "expected texts of 1 to 255 characters"),
        ("toml", '[[site]]\nvalue="A"\ntier="1"\nfrom="April"', "April is not a day"),
        ("toml", '[[site]]\nvalue="A"\ntier="1"\nfrom=2026-04-01T00:00:00', "is not a day"),
        ("csv", "site,SITE-A", "expected the header dimension,value"),
        ("csv", ",".join(COLUMNS) + "\nsite,A,tier,1,", "line 2: expected 6 fields"),
        ("csv", ",".join(COLUMNS) + "\nsite,A,tier,1,soon,", "line 2: 'soon' is not a date"),
    ],
)
def test_wrong_files_are_refused(form: str, text: str, hint: str) -> None:
    """The message names the place and what is expected there."""
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, form, ["vo", "site"])
    assert hint in str(caught.value)


def test_topology_from_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file is taken as a whole, listed, and grouped by; one that rewrites the past needs to be told to."""
    settings = Settings(data=str(tmp_path))
    file = tmp_path / "sites.toml"
    file.write_text(TOML, encoding="utf-8")
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 0
    capsys.readouterr()
    assert ran(monkeypatch, settings, "--output", "json", "topology", "list") == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed[0]) == list(COLUMNS)
    assert [(each["value"], each["attribute"], each["valid_to"]) for each in listed][:2] == [
        ("SITE-A", "country", "2026-04-01"),
        ("SITE-A", "country", None),
    ]
    file.write_text('[[site]]\nvalue = "SITE-B"\ncountry = "DE"\n', encoding="utf-8")
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 1
    assert "the past would be rewritten" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "topology", "import", str(file), "--rewrite-past") == 0
    assert ran(monkeypatch, settings, "account", "job", "--by", "site.country", "--where", "site.country=CH|DE") == 0
    assert ran(monkeypatch, settings, "account", "job", "--by", "site.county") == 2
    assert "did you mean 'site.country'" in capsys.readouterr().err


def test_closed_months_keep_their_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is said of a closed month for the first time needs a person, too; the audit keeps what was and what is."""
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "ledger", "close", "job", "2026-01") == 0
    file = tmp_path / "sites.toml"
    text = '[[site]]\nvalue = "SITE-B"\ncountry = "DE"\n'
    file.write_text(text, encoding="utf-8")
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 1
    assert "what was unknown becomes 'DE' from 2026-01-01 on, in a closed month" in capsys.readouterr().err
    file.write_text(f"{text}from = 2026-02-01\n", encoding="utf-8")
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 0
    file.write_text(text, encoding="utf-8")
    assert ran(monkeypatch, settings, "topology", "import", str(file), "--rewrite-past") == 0
    capsys.readouterr()
    assert ran(monkeypatch, settings, "--output", "json", "audit", "--limit", "1", "--action", "siteward topology") == 0
    (noted,) = json.loads(capsys.readouterr().out)
    was, became = json.loads(noted["before"]), json.loads(noted["after"])["became"]
    assert [[each["valid_from"] for each in entries] for entries in (was, became)] == [[APRIL - 59 * DAY], [None]]
