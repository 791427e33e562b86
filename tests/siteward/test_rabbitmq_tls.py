"""RabbitMQ over TLS: spoken to where it proves to be the server that is named, by AMQP as by its management plugin."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from certified import authority
from rabbitmq_server import Vhost

from siteward.broker import BrokerError, BrokerUnavailable, Message
from siteward.broker.rabbitmq import open_broker
from siteward.broker.rabbitmq.addresses import address_of
from siteward.broker.rabbitmq.management import Management
from siteward.settings import Settings

TOPOLOGY = {"everything": ("#",)}


def _over_tls(vhost: Vhost, **settings: object) -> Settings:
    return vhost.settings(url=f"amqps://guest@localhost:{vhost.node.tls_port}/{vhost.name}", **settings)


def test_tls_trusts_the_named_authority(vhost: Vhost) -> None:
    """Publishing and consuming work over TLS, with envelopes much larger than what TLS sends at once."""
    settings = _over_tls(vhost, ca=str(vhost.node.ca))
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        with closing(opened.publisher()) as publisher:
            publisher.publish([Message("v.job", bytes(3_000_000))] * 3)
        with closing(opened.consumer("everything", "c", 3)) as consumer:
            sizes: list[int] = []
            while len(sizes) < 3:
                deliveries = consumer.receive(5)
                sizes += [len(delivery.message.body) for delivery in deliveries]
                consumer.acknowledge(deliveries)
        assert sizes == [3_000_000] * 3


def test_a_cut_of_tls_is_not_taken_for_a_wrong_certificate(vhost: Vhost) -> None:
    """A connection that ends is tried again, whatever words TLS finds for its end."""
    settings = _over_tls(vhost, ca=str(vhost.node.ca))
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        with closing(opened.consumer("everything", "c", 3)) as consumer:
            vhost.node.ctl("close_all_connections", "--vhost", vhost.name, "cut by the test")
            with pytest.raises(BrokerUnavailable) as caught:
                consumer.receive(10)
        assert not caught.value.permanent
        assert len(opened.status()) == 1


def test_tls_refuses_a_stranger(vhost: Vhost) -> None:
    """A server whose certificate no trusted authority has signed gets no password; that is a permanent error."""
    settings = _over_tls(vhost)
    with (
        open_broker(settings.broker.url, settings) as opened,
        pytest.raises(BrokerError, match=r"broker\.ca") as caught,
    ):
        opened.status()
    assert caught.value.permanent


def test_tls_refuses_a_certificate_of_another_name(vhost: Vhost) -> None:
    """A good certificate of somebody else proves nothing; no password is sent, and no other try helps."""
    url = f"amqps://guest@127.0.0.1:{vhost.node.tls_port}/{vhost.name}"
    settings = vhost.settings(url=url, ca=str(vhost.node.ca))
    with (
        open_broker(settings.broker.url, settings) as opened,
        pytest.raises(BrokerError, match=r"IP address mismatch.*broker\.ca") as caught,
    ):
        opened.status()
    assert caught.value.permanent


def _managed(vhost: Vhost, host: str, ca: str = "") -> Management:
    """The management plugin over TLS, under a name of this machine."""
    settings = vhost.settings(management=f"https://{host}:{vhost.node.tls_management}", ca=ca).broker
    return Management(address_of(settings.url, settings), settings)


def test_the_management_plugin_is_asked_over_tls(vhost: Vhost, tmp_path: Path) -> None:
    """With the broker's authority; where it does not prove its name no password is sent, and nothing is known."""
    ca = str(vhost.node.ca)
    settings = vhost.settings()
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
    assert set(_managed(vhost, "localhost", ca).queues()) >= {"siteward.everything"}
    for host, trusted in (("localhost", ""), ("localhost", str(authority(tmp_path))), ("127.0.0.1", ca)):
        refused = _managed(vhost, host, trusted)
        with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
            refused.queues()
        assert refused.known_queues() is None


def test_a_client_certificate_is_shown_to_the_server(vhost: Vhost, tmp_path: Path) -> None:
    """Where the server asks for one, it gets ours."""
    own = tmp_path / "own.pem"
    vhost.node.authority.issue_cert("collector.example.org").private_key_and_cert_chain_pem.write_to_path(own)
    settings = _over_tls(vhost, ca=str(vhost.node.ca), certificate=str(own))
    with open_broker(settings.broker.url, settings) as opened:
        assert opened.status() == []
        shown = vhost.node.ctl("list_connections", "ssl", "peer_cert_issuer")
    assert "true" in shown
    assert "trustme" in shown
