"""What should be on RabbitMQ, where it is, and how the two are compared: without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from traceback import format_exception
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from examples import JOB, NOW, job_rows
from pika import BasicProperties
from rich.pretty import pretty_repr

from siteward.broker import Message, QueueStatus
from siteward.broker.opening import open_declared
from siteward.broker.rabbitmq import open_broker, standing
from siteward.broker.rabbitmq.addresses import address_of
from siteward.broker.rabbitmq.checking import compared
from siteward.broker.rabbitmq.difference import Difference
from siteward.broker.rabbitmq.management import FoundBinding, FoundExchange, FoundPolicy, FoundQueue
from siteward.broker.rabbitmq.messages import headers_of, message_of, properties_of
from siteward.broker.rabbitmq.plan import ENVELOPE, PRODUCER, Plan, WrongPlan, plan_of
from siteward.broker.rabbitmq.policies import effects
from siteward.broker.rabbitmq.publisher import _Outgoing, _Outlet
from siteward.broker.tls import WrongAddress
from siteward.compression import compress_zstd
from siteward.envelope import ZSTD, seal
from siteward.hiding import without_password
from siteward.settings import BrokerSettings, Settings, ShardSettings

TOPOLOGY = {"monitoring": ("#",), "jobs": ("#.job",), "hosts": ("#.host",)}
SHARDED = BrokerSettings(shards={"job": ShardSettings(queues=2, ordered=True)}, delivery_limit=7, ordered=("hosts",))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://host", "amqp://guest@host:5672/"),
        ("amqps://me:secret@a:1,b/the%20vhost", "amqps://me@a:1,b:5671/the vhost"),
        ("amqp://me@[::1]:7/%2f", "amqp://me@[::1]:7/"),
    ],
)
def test_a_url_names_hosts_user_and_virtual_host(url: str, shown: str) -> None:
    """Defaults are filled in, several hosts are possible, and the password is never shown."""
    address = address_of(url, BrokerSettings(password="other"))  # no password.
    assert str(address) == shown
    assert "secret" not in repr(address) + str(address)
    assert address.password == ("secret" if "secret" in url else "other")


@pytest.mark.parametrize("url", ["amqp:///vhost", "amqp://me:secret@host:many/", "amqp://me:secret@a,,b/"])
def test_a_url_without_a_host_is_refused(url: str) -> None:
    """The error names the setting, and never the password."""
    with pytest.raises(WrongAddress, match=r"broker\.url") as caught:
        open_broker(url, Settings())
    assert caught.value.permanent
    assert "secret" not in str(caught.value)


def test_settings_never_show_a_secret() -> None:
    """Neither their own text nor what rich draws in a trace."""
    section = BrokerSettings(url="amqps://me:s3cret/@host/v", password="s3cret", prefetch=7)
    assert "s3cret" not in repr(Settings(broker=section)) + pretty_repr(section)
    assert "url='amqps://me:hidden@host/v', prefetch=7" in repr(section)
    assert "password='hidden'" in repr(section)
    assert "password=''" in repr(BrokerSettings())


@pytest.mark.parametrize(
    "url", ["{}/x@h/v", "{}#x@h/v", "{}?x@h/v", "{}[x@h/v", "[{}]@h/v", "7/{}@h/v", "{}\uff0f@h/v"]
)
def test_a_password_that_is_not_encoded_is_not_quoted(url: str) -> None:
    """What cuts the URL short within the password is named, and nothing of the password is told, in traces neither."""
    whole = f"amqps://u:{url.format('geheim')}"
    settings = Settings(broker=BrokerSettings(url=whole))
    with pytest.raises(WrongAddress, match="percent-encode the password") as caught:
        open_declared(settings)
    assert caught.value.permanent
    assert "geheim" not in "".join(format_exception(caught.value))
    assert "geheim" not in f"{settings!r} {without_password(whole)}"


def test_a_certificate_file_that_is_not_there_is_named() -> None:
    """With `amqps` the trusted authorities have to be readable before anything is sent."""
    with pytest.raises(WrongAddress, match=r"broker\.ca: /nowhere/ca\.pem"):
        open_broker("amqps://host/", Settings(broker=BrokerSettings(ca="/nowhere/ca.pem"))).status()


def test_every_queue_is_bounded_and_loses_nothing() -> None:
    """All are quorum queues that refuse what is too much, and what is returned or parked is never dropped."""
    plan = plan_of(TOPOLOGY, SHARDED)
    for queue in plan.queues:
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert {"x-max-length", "x-max-length-bytes", "x-delivery-limit"} <= set(queue.arguments)
        if not queue.name.endswith(".parked"):
            assert queue.arguments["x-delivery-limit"] == 7
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
    named = {queue.name: queue.arguments for queue in plan.queues}
    assert named["siteward.jobs"]["x-dead-letter-exchange"] == "siteward.jobs.returned"
    assert named["siteward.jobs.returned"]["x-dead-letter-exchange"] == "siteward.jobs.parked"
    ordered = [name for name, arguments in named.items() if "x-single-active-consumer" in arguments]
    assert ordered == [
        *(f"siteward.monitoring.job.{number}" for number in range(2)),
        *(f"siteward.jobs.job.{number}" for number in range(2)),
        "siteward.hosts",
    ]


def test_a_sharded_kind_is_spread_for_the_sinks_that_take_it() -> None:
    """Its messages go to a hash exchange of each such sink, and no longer into the sinks' own queues."""
    plan = plan_of(TOPOLOGY, SHARDED)
    first = {(binding.destination, binding.key) for binding in plan.bindings if binding.source == "siteward"}
    assert first == {("siteward.monitoring.job", "#.job"), ("siteward.jobs.job", "#.job")}
    assert {exchange.name for exchange in plan.exchanges if exchange.type == "x-consistent-hash"} == {
        "siteward.monitoring.job",
        "siteward.jobs.job",
    }


@pytest.mark.parametrize(
    ("topology", "shards"),
    [
        ({"a.b": ("#",)}, {}),
        ({"unsharded": ("#",)}, {}),
        ({"s": ("#",)}, {"parked": 2}),
        ({"s": ("vo.#",)}, {"job": 2}),
    ],
)
def test_names_and_patterns_that_would_clash_are_refused(
    topology: dict[str, tuple[str, ...]], shards: dict[str, int]
) -> None:
    """A sink, kind or pattern that cannot be told from our own names is refused, and not half carried out."""
    settings = BrokerSettings(shards={kind: ShardSettings(queues=number) for kind, number in shards.items()})
    with pytest.raises(WrongPlan) as caught:
        plan_of(topology, settings)
    assert caught.value.permanent


@pytest.mark.parametrize("encoding", ["", ZSTD])
def test_producer_and_id_of_an_envelope_go_beside_it(encoding: str) -> None:
    """What decides the shard is read from the envelope, even a compressed one of a sharded kind."""
    body = seal(JOB, job_rows(3), "pilot@node7", NOW, identifier=b"\x01" * 16)
    message = Message("example.job", compress_zstd(body) if encoding else body, 3, content_encoding=encoding)
    properties = properties_of(message, ["job"], {})
    assert headers_of(properties)[PRODUCER] == "pilot@node7"
    assert headers_of(properties)[ENVELOPE] == "01" * 16
    assert message_of(message.key, properties, message.body) == message


def test_a_body_that_is_no_envelope_is_sent_all_the_same() -> None:
    """It is the collector that says what is wrong with it, and keeps it."""
    message = Message("example.job", b"nonsense", 3, id="x")
    properties = properties_of(message, ["job"], {})
    assert PRODUCER not in headers_of(properties)
    assert message_of(message.key, properties, message.body) == message


def test_a_message_of_another_program_has_no_headers() -> None:
    """Whoever writes envelopes without our libraries need not know our headers."""
    assert message_of("a.job", BasicProperties(), b"x") == Message("a.job", b"x", content_type="")


def test_a_message_that_is_being_sent_is_not_taken_for_confirmed() -> None:
    """At no moment between waiting and being on its way does a call look as if it were over."""
    outgoing = _Outgoing([Message("v.job", b"1")], {})
    seen: list[bool] = []

    class Watching:
        def basic_publish(self, *_message: object, mandatory: bool) -> None:
            seen.append(mandatory and outgoing.over)

    link: Any = SimpleNamespace(blocked="")
    channel: Any = Watching()
    _Outlet(link, "siteward", BrokerSettings()).send(outgoing, channel)
    assert seen == [False]
    assert not outgoing.over


@pytest.mark.parametrize(
    ("heads", "oldest"),
    [
        ((1_700_000_100, 1_700_000_050), datetime(2023, 11, 14, 22, 14, 10, tzinfo=UTC)),
        ((None, 1_700_000_100), datetime(2023, 11, 14, 22, 15, tzinfo=UTC)),
        ((None, None), None),
    ],
)
def test_the_oldest_message_of_all_queues_of_a_sink_is_told(
    monkeypatch: pytest.MonkeyPatch, heads: tuple[int | None, int | None], oldest: datetime | None
) -> None:
    """From RabbitMQ 4.1 on the heads of a sink's queues say when they were published; before that nobody knows."""
    ready = {"siteward.jobs": 3, "siteward.jobs.job.0": 4, "siteward.jobs.parked": 1}
    monkeypatch.setattr(standing, "waiting_in", lambda _link, name: ready.get(name))
    known = {
        name: FoundQueue(name, messages=5, messages_unacknowledged=1, message_bytes=9, head_message_timestamp=head)
        for name, head in zip(("siteward.jobs", "siteward.jobs.job.0"), heads, strict=True)
    }
    # What was put aside waits for nobody.
    known["siteward.jobs.parked"] = FoundQueue("siteward.jobs.parked", head_message_timestamp=1_000_000_000)
    link: Any = None
    assert standing.standing_of("jobs", link, BrokerSettings(), known) == QueueStatus(
        queue="jobs",
        ready=7,
        unacked=2,
        parked=1,
        records=None,
        bytes=18,
        oldest=oldest,
        published=None,
        acknowledged=None,
    )


def _found(plan: Plan) -> tuple[dict[str, FoundExchange], dict[str, FoundQueue], list[FoundBinding]]:
    exchanges = {each.name: FoundExchange(each.name, each.type, arguments=each.arguments) for each in plan.exchanges}
    queues = {each.name: FoundQueue(each.name, each.arguments, "quorum") for each in plan.queues}
    bindings = [
        FoundBinding(each.source, each.destination, "exchange" if each.to_exchange else "queue", each.key)
        for each in plan.bindings
    ]
    return exchanges, queues, bindings


def test_what_is_as_it_should_be_differs_in_nothing() -> None:
    """A plan that was carried out is found to be carried out."""
    plan = plan_of(TOPOLOGY, SHARDED)
    assert list(compared(plan, *_found(plan))) == []


def test_each_difference_is_named() -> None:
    """Missing, different and superfluous things, with what is and what should be."""
    plan = plan_of(TOPOLOGY, SHARDED)
    exchanges, queues, bindings = _found(plan)
    del exchanges["siteward.jobs.job"]
    lost = queues.pop("siteward.jobs.job.1")
    queues["siteward.jobs"] = FoundQueue("siteward.jobs", lost.arguments | {"x-max-length": 5})
    queues["siteward.gone"] = FoundQueue("siteward.gone", messages=4)
    bindings += [
        FoundBinding("siteward", "somebody's", "queue", "#"),
        FoundBinding("siteward.unsharded", "somebody's", "queue", "#"),
        FoundBinding("siteward.unsharded", "siteward.jobs", "queue", "#.host"),
    ]
    bindings = [each for each in bindings if each.destination != "siteward.hosts.parked"]
    assert list(compared(plan, exchanges, queues, bindings)) == [
        Difference("exchange", "siteward.jobs.job", "missing"),
        Difference("queue", "siteward.jobs", "differs", "x-max-length", "5", "1000000"),
        Difference("queue", "siteward.jobs", "differs", "x-single-active-consumer", "True", ""),
        Difference("queue", "siteward.jobs.job.1", "missing"),
        Difference("queue", "siteward.gone", "superfluous", messages=4),
        Difference("binding", "siteward.hosts.parked -> siteward.hosts.parked ()", "missing"),
        # It would get messages in place of the sinks, which a queue bound to the second exchange does not.
        Difference("binding", "siteward -> somebody's (#)", "superfluous"),
        Difference("binding", "siteward.unsharded -> siteward.jobs (#.host)", "superfluous"),
    ]


def _policed(name: str, policy: dict[str, object] | list[object], operator: str | None = None) -> list[Difference]:
    """What is told of the policies of one queue."""
    plan = plan_of(TOPOLOGY, SHARDED)
    exchanges, queues, _ = _found(plan)
    queues[name] = msgspec.structs.replace(
        queues[name], policy="p", operator_policy=operator, effective_policy_definition=policy
    )
    return list(effects(plan, queues, exchanges, {}))


@pytest.mark.parametrize(
    ("policy", "problem", "wanted"),
    [
        ({"message-ttl": 60_000}, "discards", ""),
        ({"expires": 60_000}, "discards", ""),
        ({"overflow": "drop-head"}, "discards", "reject-publish"),
        ({"max-length": 7}, "differs", "1000000"),
        ({"delivery-limit": 6}, "differs", "7"),
        ({"dead-letter-exchange": "elsewhere"}, "differs", "siteward.jobs.returned"),
        ({"a-key-of-next-year": [1]}, "differs", ""),
    ],
)
def test_a_policy_that_matters_is_told(policy: dict[str, object], problem: str, wanted: str) -> None:
    """What lets records vanish discards, what is otherwise not as asked for differs; both policies are named."""
    ((key, value),) = policy.items()
    for operator, name in ((None, "p -> siteward.jobs"), ("o", "p + o -> siteward.jobs")):
        (told,) = _policed("siteward.jobs", policy, operator)
        assert told == Difference("policy", name, problem, key, str(value), wanted)  # type: ignore[arg-type]  # parametrized.


@pytest.mark.parametrize(
    "policy",
    [
        {},
        [],
        {"overflow": "reject-publish", "max-length": 10**9, "delivery-limit": 7, "ha-mode": "all", "ha-params": [1]},
    ],
)
def test_a_policy_that_changes_nothing_is_not_told(policy: dict[str, object] | list[object]) -> None:
    """What is as asked for, a limit beyond the queue's own, and where a queue lives lose nothing."""
    assert _policed("siteward.jobs", policy) == []


def test_whoever_looks_at_parked_messages_must_not_use_them_up() -> None:
    """A delivery limit on what was put aside discards: there is no further queue behind it."""
    (told,) = _policed("siteward.jobs.parked", {"delivery-limit": 100})
    assert (told.problem, told.argument) == ("discards", "delivery-limit")


def test_an_alternate_exchange_is_told_where_it_applies() -> None:
    """It takes what no queue takes, so that no sender hears of it; the first exchange has one of ours, which wins."""
    plan = plan_of(TOPOLOGY, SHARDED)
    exchanges, queues, _ = _found(plan)
    for name in ("siteward", "siteward.unsharded", "siteward.jobs"):
        exchanges[name] = msgspec.structs.replace(exchanges[name], policy="all" if name != "siteward.jobs" else "other")
    policies = {
        "all": FoundPolicy("all", {"alternate-exchange": "spare", "message-ttl": 5}),
        "other": FoundPolicy("other", {"message-ttl": 5}),
    }
    assert list(effects(plan, queues, exchanges, policies)) == [
        Difference("policy", "all -> siteward.unsharded", "discards", "alternate-exchange", "spare")
    ]
