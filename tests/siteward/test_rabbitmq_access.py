"""Who may do what on RabbitMQ: users, topic permissions, certificates, and what `siteward broker check` sees."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from rabbitmq_server import PLUGINS, RabbitNode, Vhost, eventually
from servers import REPOSITORY
from typer.testing import CliRunner

from siteward.broker import BrokerError, Delivery, Forbidden, Message, opening
from siteward.broker.rabbitmq import RabbitBroker, RabbitConsumer, open_broker
from siteward.broker.rabbitmq.checking import Report
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.difference import Difference
from siteward.broker.rabbitmq.making import make_queue
from siteward.broker.rabbitmq.plan import Queue
from siteward.cli import application
from siteward.settings import BrokerSettings, Settings, ShardSettings

TOPOLOGY = {"everything": ("#",)}


@pytest.fixture
def broker(vhost: Vhost) -> Iterator[RabbitBroker]:
    """A broker with one queue."""
    settings = vhost.settings()
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        yield opened


def _as(vhost: Vhost, user: str, password: str, **settings: object) -> Settings:
    url = vhost.url.replace("guest@", f"{user}@")
    return vhost.settings(**{"url": url, "password": password, **settings})


WORD = "secret word"
MANUAL = (REPOSITORY / "docs" / "how-to" / "rabbitmq.md").read_text(encoding="utf-8")


def _commands(tool: str) -> list[list[str]]:
    """The arguments of every line of the manual that runs a tool of RabbitMQ's, in order."""
    return [shlex.split(line)[2:] for line in MANUAL.splitlines() if line.startswith(f"$ {tool} ")]


@pytest.fixture
def manual(rabbitmq: RabbitNode) -> Iterator[Callable[..., Settings]]:
    """A node that was prepared as the manual says; settings for one of its users."""
    commands = _commands("rabbitmqctl")
    try:
        for command in commands:
            # The manual shows no password; it is asked for.
            rabbitmq.ctl(*command, typed=f"{WORD}\n" if command[0] == "add_user" else "")
        yield lambda user, **settings: Settings(
            broker=BrokerSettings(
                url=f"amqp://{user}@127.0.0.1:{rabbitmq.port}/siteward",
                password=WORD,
                management=f"http://127.0.0.1:{rabbitmq.management}",
                timeout=10.0,
                **settings,
            )
        )
    finally:
        for what, name in (each[:2] for each in commands if each[0] in {"add_vhost", "add_user"}):
            with suppress(AssertionError):
                rabbitmq.ctl(what.replace("add", "delete"), name)


def test_who_may_publish_for_one_vo_cannot_for_another(manual: Callable[..., Settings]) -> None:
    """With the commands of the manual a user publishes for its own VOs only; the key that was refused is named."""
    collectors = manual("siteward")
    with open_broker(collectors.broker.url, collectors) as opened:
        opened.declare(TOPOLOGY)
    settings = manual("pilot")
    with open_broker(settings.broker.url, settings) as opened, closing(opened.publisher()) as publisher:
        opened.declare(TOPOLOGY)
        publisher.publish([Message("vo.example.org.job", b"mine")])
        for key in ("other.job", "vo.example.org.x.job", "job"):
            with pytest.raises(Forbidden) as caught:
                publisher.publish([Message("vo.example.org.job", b"mine"), Message(key, b"not mine")])
            assert caught.value.key == key
            assert WORD not in str(caught.value)
        publisher.publish([Message("vo.example.org.job", b"mine")])
        # It sees how much waits, and no more than that.
        assert opened.status()[0].unacked is None
        with pytest.raises(BrokerError, match="403"):
            opened.consumer("everything", "thief", 1)


def test_the_rights_of_the_manual_are_all_that_collectors_need(manual: Callable[..., Settings]) -> None:
    """Making, publishing, consuming, cutting up, returning, parking, looking, checking and removing; nothing else."""
    settings = manual("siteward", delivery_limit=2, shards={"host": ShardSettings(queues=2)})
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        assert opened.check(TOPOLOGY) == Report(())
        with closing(opened.publisher()) as publisher:
            publisher.publish([Message("v.host", b"1"), Message("v.job", b"2", id="poison")])
        with closing(opened.consumer("everything", "c", 10)) as consumer:
            taken = _taken(consumer, 2)
            consumer.replace(taken["1"], [Message("v.job", b"3")])
            consumer.acknowledge([_taken(consumer, 1)["3"]])
        for _ in range(6):
            with closing(opened.consumer("everything", "c", 1)) as consumer:
                consumer.receive(1.0)
        eventually(lambda: len(opened.parked()) == 1)
        eventually(lambda: opened.status()[0].unacked == 0)
        assert opened.replay([each.number for each in opened.parked()]) == 1
        with closing(opened.consumer("everything", "c", 1)) as consumer:
            consumer.park(_taken(consumer, 1)["2"], "unreadable")
        assert opened.discard([each.number for each in opened.parked()]) == 1
        assert opened.remove("everything") == 0
        with pytest.raises(BrokerError, match="403"):
            make_queue(Link(opened.address, settings.broker, "stranger"), Queue("elsewhere"))


def _taken(consumer: RabbitConsumer, count: int) -> dict[str, Delivery]:
    """So many deliveries by their bodies."""
    taken: dict[str, Delivery] = {}

    def enough() -> bool:
        taken.update({each.message.body.decode(): each for each in consumer.receive(0.5)})
        return len(taken) == count

    eventually(enough)
    return taken


def test_the_composition_gives_the_rights_of_the_manual() -> None:
    """Whoever runs `docker compose up` and whoever follows the manual have the same user, no more and no less."""
    made = json.loads((REPOSITORY / "deploy" / "rabbitmq" / "definitions.json").read_text(encoding="utf-8"))
    (given,) = [each for each in made["permissions"] if each["user"] == "siteward"]
    commands = _commands("rabbitmqctl")
    rights = ["set_permissions", "--vhost", given["vhost"], "siteward"]
    assert [*rights, given["configure"], given["write"], given["read"]] in commands
    (tags,) = [each["tags"] for each in made["users"] if each["name"] == "siteward"]
    assert ["set_user_tags", "siteward", *tags] in commands
    (plugins,) = _commands("rabbitmq-plugins")
    enabled = (REPOSITORY / "deploy" / "rabbitmq" / "enabled_plugins").read_text(encoding="utf-8")
    assert {*plugins[1:]} <= {*re.findall(r"\w+", enabled)}
    assert {*plugins[1:]} == {*re.findall(r"\w+", PLUGINS)}


def test_the_oldest_message_can_be_looked_at_without_counting(vhost: Vhost) -> None:
    """Where nothing else tells its age, the manual's command does, and the message is as if nobody had looked."""
    settings, now = vhost.settings(), time.time()
    (peek,) = _commands("rabbitmq-queues")
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare({"monitoring": ("#",)})
        with closing(opened.publisher()) as publisher:
            publisher.publish([Message("v.job", b"x"), Message("v.job", b"y")])
        for _ in range(2):
            shown = vhost.node.tool("rabbitmq-queues", *(vhost.name if each == "siteward" else each for each in peek))
            published = re.search(r"header\.x-siteward-published\b.*?(\d{16})", shown)
            assert published
            assert now - 1 < int(published[1]) / 1e6 < now + 60
        with closing(opened.consumer("monitoring", "c", 2)) as consumer:
            assert [each.redelivered for each in _taken(consumer, 2).values()] == [0, 0]


def test_a_publisher_without_rights_waits_for_the_exchange(vhost: Vhost) -> None:
    """Before the first collector has made it, a user who may not make it is told to try again."""
    user = vhost.user("word", "^$", "^siteward$", "^$")
    settings = _as(vhost, user, "word")
    with open_broker(settings.broker.url, settings) as opened, closing(opened.publisher()) as publisher:
        opened.declare(TOPOLOGY)
        with pytest.raises(BrokerError, match="no exchange 'siteward' yet") as caught:
            publisher.publish([Message("v.job", b"x")])
        assert not caught.value.permanent


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"password": "wrong"}, "user or password"), ({"url": "amqp://guest@127.0.0.1:{port}/nowhere"}, "virtual host")],
)
def test_a_wrong_account_is_permanent(vhost: Vhost, changes: dict[str, str], what: str) -> None:
    """A password or virtual host that is wrong stays wrong; the error says which setting, and not the password."""
    given = {name: value.format(port=vhost.node.port) for name, value in changes.items()}
    settings = vhost.settings(**given)
    with open_broker(settings.broker.url, settings) as opened, pytest.raises(BrokerError, match=what) as caught:
        opened.status()
    assert caught.value.permanent
    assert "wrong;" not in str(caught.value).replace("is wrong;", "")


@pytest.mark.usefixtures("broker")
def test_a_user_who_may_not_publish_at_all_is_told_so(vhost: Vhost) -> None:
    """Without the right to write no key is at fault, and no other try helps."""
    user = vhost.user("word", "^$", "^$", "^$")
    settings = _as(vhost, user, "word")
    with open_broker(settings.broker.url, settings) as opened, closing(opened.publisher()) as publisher:
        with pytest.raises(BrokerError, match="set_permissions") as caught:
            publisher.publish([Message("v.job", b"x")])
        assert caught.value.permanent


def test_a_key_that_amqp_cannot_carry_is_forbidden(broker: RabbitBroker) -> None:
    """A key longer than 255 bytes is told at once, as one that holds up no others; what comes after it is sent."""
    with closing(broker.publisher()) as publisher:
        with pytest.raises(Forbidden, match="cannot carry") as caught:
            publisher.publish([Message("v" * 300 + ".job", b"x")])
        assert caught.value.key == "v" * 300 + ".job"
        publisher.publish([Message("v.job", b"x")])


def test_check_finds_nothing_after_declare(broker: RabbitBroker) -> None:
    """What declare() has made is what should be there, with the plugin's eyes and with AMQP's alone."""
    assert broker.check(TOPOLOGY).differences == ()
    assert broker.check(TOPOLOGY).unseen == ()


@pytest.mark.usefixtures("broker")
def test_check_tells_what_differs(vhost: Vhost) -> None:
    """Each difference is listed; without the plugin those that AMQP tells, and what could not be seen."""
    vhost.node.api("DELETE", f"queues/{vhost.path}/siteward.everything.returned")
    vhost.node.api("PUT", f"queues/{vhost.path}/operators.own", {"durable": True})
    vhost.node.api("POST", f"bindings/{vhost.path}/e/siteward/q/operators.own", {"routing_key": "#"})
    length = Difference("queue", "siteward.everything", "differs", "x-max-length", "1000000", "7")
    missing = Difference("queue", "siteward.everything.returned", "missing")
    parked = Difference("queue", "siteward.everything.parked", "differs", "x-max-length", "1000000", "7")
    binding = "siteward.everything.returned -> siteward.everything.returned ()"
    settings = vhost.settings(max_messages=7)
    with open_broker(settings.broker.url, settings) as opened:
        report = opened.check(TOPOLOGY)
        assert report.differences == (
            length,
            missing,
            parked,
            Difference("binding", binding, "missing"),
            Difference("binding", "siteward -> operators.own (#)", "superfluous"),
        )
        assert opened.unbind(TOPOLOGY) == 1
        assert opened.check(TOPOLOGY).differences[-1] == Difference("binding", binding, "missing")
    settings = vhost.settings(max_messages=7, management="http://127.0.0.1:1")
    with open_broker(settings.broker.url, settings) as opened:
        report = opened.check(TOPOLOGY)
        assert report.differences == (length, missing, parked)
        assert "rabbitmq_management" in report.unseen[0]
        opened.declare(TOPOLOGY)
        assert opened.status()[0].unacked is None


def test_check_tells_what_policies_do(vhost: Vhost, broker: RabbitBroker) -> None:
    """Policies that discard records are listed, operators' too, those of exchanges too, to a user who only looks."""
    user = vhost.user("word", "^$", "^$", ".*", tags="monitoring")
    for kind, name, target, pattern, definition in (
        ("set_policy", "tidy", "queues", r"^siteward\.everything$", {"overflow": "drop-head", "max-length": 2}),
        ("set_operator_policy", "short", "queues", "^siteward", {"message-ttl": 86_400_000, "expires": 86_400_000}),
        ("set_policy", "spare", "exchanges", "^siteward", {"alternate-exchange": "amq.fanout"}),
        ("set_policy", "other", "queues", "^other", {"message-ttl": 1}),
    ):
        vhost.node.ctl(kind, "--vhost", vhost.name, "--apply-to", target, name, pattern, json.dumps(definition))
    queue = "siteward.everything"
    sides = [f"short -> {queue}.parked", f"short -> {queue}.returned"]
    day = "86400000"
    wanted = {
        Difference("policy", f"tidy + short -> {queue}", "discards", "overflow", "drop-head", "reject-publish"),
        Difference("policy", f"tidy + short -> {queue}", "differs", "max-length", "2", "1000000"),
        *(
            Difference("policy", name, "discards", key, day)
            for name in (f"tidy + short -> {queue}", *sides)
            for key in ("message-ttl", "expires")
        ),
        *(
            Difference("policy", f"spare -> {name}", "discards", "alternate-exchange", "amq.fanout")
            for name in ("siteward.unsharded", queue, f"{queue}.returned", f"{queue}.parked")
        ),
    }
    settings = _as(vhost, user, "word")
    with open_broker(settings.broker.url, settings) as opened:
        eventually(lambda: set(opened.check(TOPOLOGY).differences) == wanted)
        assert opened.check(TOPOLOGY).unseen == ()
    # It is as said: what should be refused is taken, and what was there first is no longer where it was.
    with closing(broker.publisher()) as publisher:
        for number in range(5):
            publisher.publish([Message("v.job", b"x", id=str(number))])
    eventually(lambda: vhost.node.api("GET", f"queues/{vhost.path}/{queue}").get("messages") == 2)
    for name in ("tidy", "spare", "other"):
        vhost.node.ctl("clear_policy", "--vhost", vhost.name, name)
    vhost.node.ctl("clear_operator_policy", "--vhost", vhost.name, "short")
    eventually(lambda: broker.check(TOPOLOGY).differences == ())


def test_the_check_command_exits_1_where_something_differs(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`siteward broker check` is for scripts too: it lists differences as data, and its exit status says whether."""
    settings = vhost.settings()
    for name in ("url", "management"):
        monkeypatch.setenv(f"SITEWARD_BROKER__{name.upper()}", getattr(settings.broker, name))
    monkeypatch.setenv("SITEWARD_DATA", str(tmp_path))
    command = ["--output", "json", "broker", "check"]
    before = CliRunner().invoke(application, command)
    assert before.exit_code == 1
    first = json.loads(before.stdout)[0]
    assert (first["thing"], first["name"], first["problem"]) == ("exchange", "siteward", "missing")
    opening.open_declared(settings).close()
    after = CliRunner().invoke(application, command)
    assert (after.exit_code, json.loads(after.stdout)) == (0, [])


def test_the_remove_command_asks_with_messages(
    broker: RabbitBroker, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ counts no records, so the question before a queue is removed names messages."""
    for name in ("url", "management"):
        monkeypatch.setenv(f"SITEWARD_BROKER__{name.upper()}", getattr(vhost.settings().broker, name))
    with closing(broker.publisher()) as publisher:
        publisher.publish([Message("v.job", b"x", 5)])
    declined = CliRunner().invoke(application, ["broker", "remove", "everything"], input="n\n")
    assert declined.exit_code == 1
    assert "1 messages wait in 'everything'" in declined.output
    done = CliRunner().invoke(application, ["broker", "remove", "everything", "--yes"])
    assert (done.exit_code, "5 records went with it" in done.output) == (0, True)


def test_the_check_command_has_nothing_to_say_of_the_embedded_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file needs no comparison."""
    monkeypatch.setenv("SITEWARD_DATA", str(tmp_path))
    answer = CliRunner().invoke(application, ["broker", "check"])
    assert (answer.exit_code, answer.stdout) == (0, "")
