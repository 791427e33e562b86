"""The audit on every database: entries in order, complete, found again, never changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final

import pytest
from at_once import all_at_once
from issuer import Clock
from ledger_databases import Place
from plans import analyze, recorded, unindexed
from sqlalchemy import MetaData, Table
from sqlalchemy.exc import DBAPIError

from siteward.server.auth.audit import MOST, Audit, Verified
from siteward.server.auth.audit_tables import AuditTables
from siteward.server.auth.audit_texts import LONGEST_STATE
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.database import ADDED_ONLY, Database
from siteward.server.database.columns import blob_column, integer_column, number_column, text_column

LARGE: Final = ("access_audit", "access_audit_vos")
TRIGGERS: Final = {
    "sqlite": ["DROP TRIGGER {table}_update", "DROP TRIGGER {table}_delete"],
    "postgresql": ["DROP TRIGGER {table}_kept ON {table}"],
    "mariadb": ["DROP TRIGGER {table}_update", "DROP TRIGGER {table}_delete"],
}


def caller(subject: str = "anna", token: str = "t1", issuer: str = "https://dteam.iam.example") -> Caller:
    """Somebody."""
    return Caller(Identity(issuer=issuer, subject=subject, token=token, expires=0.0), ())


def test_a_change_is_noted_before_and_after(open_audit: Callable[[], Audit], clock: Clock) -> None:
    """Who, with which token, what, when, from what to what."""
    audit = open_audit()
    asked = audit.ask(caller(), "POST /v1/denied")
    clock.now += 1
    audit.end(asked, "200", vos=["dteam"], before={"state": "Active"}, after={"state": "Banned", "why": "ümlaut"})
    after, before = open_audit().find()
    assert (before.outcome, before.of, before.after) == ("asked", 0, None)
    assert (after.issuer, after.subject, after.token) == ("https://dteam.iam.example", "anna", "t1")
    assert (after.action, after.outcome, after.of, after.vos) == ("POST /v1/denied", "200", before.number, ("dteam",))
    assert (after.before, after.after) == ({"state": "Active"}, {"state": "Banned", "why": "ümlaut"})
    assert after.at - before.at == 1_000_000


def test_what_was_only_asked_for_stays_noted(open_audit: Callable[[], Audit]) -> None:
    """Also if the process died before it was done."""
    open_audit().ask(caller(), "POST /v1/denied")
    (only,) = open_audit().find()
    assert only.outcome == "asked"


def test_entries_are_found_by_what_they_say_page_by_page(open_audit: Callable[[], Audit], clock: Clock) -> None:
    """The newest first; every one once."""
    audit, began = open_audit(), int(clock.now * 1_000_000)
    for number in range(7):
        clock.now += 1
        who = caller("anna" if number % 2 else "boris", token=f"t{number % 2}", issuer=f"https://{number % 2}.example")
        audit.end(audit.ask(who, f"act {number}"), "200", vos=[f"vo{number % 3}"])
    every: list[int] = []
    while page := audit.find(after=every[-1] if every else 0, limit=3):
        every += [each.number for each in page]
    assert every == sorted(every, reverse=True)
    assert len(every) == 14
    assert {each.subject for each in audit.find(subject="anna")} == {"anna"}
    assert {each.issuer for each in audit.find(issuer="https://1.example")} == {"https://1.example"}
    assert {each.action for each in audit.find(token="t0")} == {"act 0", "act 2", "act 4", "act 6"}
    assert {each.action for each in audit.find(vo="vo1")} == {"act 1", "act 4"}
    assert {each.action for each in audit.find(action="act 3")} == {"act 3"}
    assert len(audit.find(action="act")) == 14
    assert {each.action for each in audit.find(since=began + 6_000_000)} == {"act 5", "act 6"}
    assert {each.action for each in audit.find(until=began + 3_000_000)} == {"act 0", "act 1"}
    assert [each.action for each in audit.find(subject="anna", vo="vo0", since=began, token="t1")] == ["act 3"]
    assert audit.find(subject="anna", vo="vo2", token="t0") == []
    assert len(audit.find(limit=10 * MOST)) == 14


def test_what_is_about_several_vos_is_found_by_each(open_audit: Callable[[], Audit]) -> None:
    """Also where it was only asked for; what is about all, by every one."""
    audit = open_audit()
    asked = audit.ask(caller(), "correct", ["beta", "alpha", "beta"])
    audit.end(asked, "500")
    audit.end(audit.ask(caller(), "close", ["alpha"]), "200", vos=["*", "beta"])
    audit.end(audit.ask(caller(), "deny"), "200")
    assert [each.vos for each in audit.find()] == [(), (), ("*",), ("alpha",), ("alpha", "beta"), ("alpha", "beta")]
    assert [(each.action, each.outcome) for each in audit.find(vo="beta")] == [
        ("close", "200"),
        ("correct", "500"),
        ("correct", "asked"),
    ]
    assert [each.action for each in audit.find(vo="gamma")] == ["close"]


def test_the_database_lets_entries_only_be_added(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database], ledger_place: Place
) -> None:
    """Whoever has its password and is careless changes none, nor takes one away; nor does what replaces one."""
    audit = open_audit()
    audit.end(audit.ask(caller(), "close", ["dteam"]), "200")
    before = audit.find()
    columns = "number, at, issuer, subject, token, outcome, action, of, before, after, digest"
    if ledger_place.sort == "mariadb":
        columns = ", ".join(f"`{name}`" for name in columns.split(", "))
    statements = [
        "UPDATE access_audit SET subject = 'nobody'",
        "UPDATE access_audit SET subject = 'nobody' WHERE number = 1",
        "DELETE FROM access_audit WHERE number = 2",
        "UPDATE access_audit_vos SET vo = 'other'",
        "DELETE FROM access_audit_vos",
    ]
    if ledger_place.sort == "postgresql":
        statements += ["TRUNCATE access_audit", "TRUNCATE access_audit_vos"]
    else:
        statements.append(f"REPLACE INTO access_audit ({columns}) SELECT {columns} FROM access_audit WHERE number = 1")
    database = open_database()
    for statement in statements:
        with pytest.raises(DBAPIError) as refused, database.write() as connection:
            connection.exec_driver_sql(statement)
        assert ADDED_ONLY in str(refused.value), statement
    assert open_audit().find() == before
    audit.ask(caller(), "go on")


@pytest.mark.parametrize(
    ("wrong", "changed"),
    [
        (2, "UPDATE access_audit SET subject = 'nobody' WHERE number = 2"),
        (2, "DELETE FROM access_audit_vos WHERE number = 2"),
        (3, "DELETE FROM access_audit WHERE number = 2"),
        (5, "DELETE FROM access_audit WHERE number = 5"),
    ],
)
def test_digests_tell_what_was_changed_nevertheless(
    open_audit: Callable[[], Audit],
    open_database: Callable[[], Database],
    ledger_place: Place,
    wrong: int,
    changed: str,
) -> None:
    """By somebody who may take the triggers away."""
    audit = open_audit()
    assert audit.verify() == Verified(0, 0, "", None)
    for number in range(5):
        audit.ask(caller(), f"act {number}", ["dteam"])
    good = audit.verify()
    assert (good.entries, good.number, good.wrong) == (5, 5, None)
    assert audit.digest_at(5) == good.digest
    with open_database().write() as connection:
        for table in ("access_audit", "access_audit_vos"):
            for trigger in TRIGGERS[ledger_place.sort]:
                connection.exec_driver_sql(trigger.format(table=table))
        connection.exec_driver_sql(changed)
    assert audit.verify().wrong == wrong
    # Whoever opens it next puts the triggers back.
    open_audit()
    with pytest.raises(DBAPIError), open_database().write() as connection:
        connection.exec_driver_sql(changed.replace("2", "1").replace("5", "1"))


def test_an_audit_of_before_is_brought_up(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database]
) -> None:
    """Its entries keep their numbers and VOs, and are sealed as they are; whatever comes goes on from there."""
    database, metadata = open_database(), MetaData()
    names = ("issuer", "subject", "token", "vo", "outcome", "action")
    table = Table(
        "access_audit",
        metadata,
        number_column("number"),
        integer_column("at"),
        *(text_column(name, 255) for name in names),
        integer_column("of"),
        blob_column("before"),
        blob_column("after"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
    )
    with database.write() as connection:
        metadata.create_all(connection)
        row = dict.fromkeys(names, "x") | {"at": 7, "before": b"null", "after": b"[1]"}
        for of, vo in ((0, ""), (1, "dteam")):
            connection.execute(table.insert(), row | {"of": of, "vo": vo})
    audit = open_audit()
    assert [(each.number, each.of, each.vos, each.after) for each in audit.find()] == [
        (2, 1, ("dteam",), [1]),
        (1, 0, (), [1]),
    ]
    audit.ask(caller(), "go on", ["dteam"])
    assert [each.number for each in open_audit().find(vo="dteam")] == [3, 2]
    assert audit.verify().wrong is None
    assert audit.verify().entries == 3


def test_whatever_is_asked_uses_an_index(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database], ledger_place: Place, clock: Clock
) -> None:
    """By any of what an entry says, where that is said by few; what many say is found among the newest soon enough."""
    database, audit = open_database(), open_audit()
    fill(database, 8_000)
    analyze(database, AuditTables().metadata)
    with closing(Audit(database, clock)) as asked:
        with recorded(database) as statements:
            asked.find(subject="s7", limit=10)
            asked.find(issuer="i3", after=5_000, limit=10)
            asked.find(token="t77")
            asked.find(action="act 77", limit=10)
            asked.find(vo="vo7", limit=10)
            asked.find(since=5_000, until=5_100)
            asked.find(subject="s7", vo="vo7", since=5_000)
        assert unindexed(database, ledger_place.sort, statements, LARGE) == {}
    assert audit.find(token="t77", limit=1)[0].number == 6_077


def fill(database: Database, count: int) -> None:
    """Many entries, at once; nobody verifies them."""
    tables = AuditTables()
    rows = [
        {
            "number": number,
            "at": number,
            "issuer": f"i{number % 1_000}",
            "subject": f"s{number % 2_000}",
            "token": f"t{number % 2_000}",
            "outcome": "200",
            "action": f"act {number % 100}",
            "of": 0,
            "before": b"null",
            "after": b"null",
        }
        for number in range(1, count + 1)
    ]
    with database.write() as connection:
        connection.execute(tables.entries.insert(), rows)
        connection.execute(tables.vos.insert(), [{"vo": f"vo{n % 50}", "number": n} for n in range(1, count + 1)])
        connection.execute(tables.head.update().values(number=count))


def test_many_writers_leave_every_entry(open_audit: Callable[[], Audit]) -> None:
    """With numbers of their own."""
    audits = [open_audit() for _ in range(4)]

    def act(audit: Audit) -> None:
        for number in range(10):
            audit.end(audit.ask(caller(), f"act {number}"), "200")

    assert not all_at_once([lambda audit=audit: act(audit) for audit in audits])  # type: ignore[misc]  # each its own.
    found = audits[0].find(limit=MOST)
    assert audits[0].verify().wrong is None
    assert len({each.number for each in found}) == 80
    asked = {each.number for each in found if each.outcome == "asked"}
    assert {each.of for each in found if each.outcome == "200"} == asked


def test_what_is_too_long_is_cut_and_said_to_be(open_audit: Callable[[], Audit]) -> None:
    """A change of a megabyte must not keep the audit from being written."""
    audit = open_audit()
    audit.end(audit.ask(caller("s" * 255), "a" * 10_000), "200", before="x" * LONGEST_STATE, after=["y"])
    newest = audit.find()[0]
    assert "cut" in newest.before
    assert newest.after == ["y"]
    assert len(newest.action) == 255
