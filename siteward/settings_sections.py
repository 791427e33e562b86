"""The tables of the settings file: every key with its type, its default and what it is for."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, dataclass_transform

import msgspec

from siteward.hiding import HIDDEN, without_password

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Days = Annotated[int, msgspec.Meta(ge=0, le=36_500)]


SECRETS: Final = (
    "broker.password",
    "monitoring.password",
    "accounting.password",
    "prometheus.token",
    "prometheus.url_token",
    "prometheus.remote_write_token",
    "access.password",
    "access.pseudonym_key",
    "issuers.*.client_secret",
    "credentials.client_secret",
)
"""Keys that may be given as `<key>_file`, a path to a file with the value; their values are never shown. A star stands
for any name."""


SECRET_NAMES: Final = frozenset(secret.rpartition(".")[2] for secret in SECRETS)
"""What secrets are called within their sections."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file. Its repr is safe in logs and traces."""

    def __repr__(self) -> str:
        """All settings, secrets hidden."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for traces drawn by rich, which asks for names and values."""
        shown: list[tuple[str, Any]] = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str):
                value = HIDDEN if value and name in SECRET_NAMES else without_password(value)
            shown.append((name, value))
        return shown


class ShardSettings(Section):
    """`[broker.shards.KIND]`: one kind spread over several queues of every sink."""

    queues: Annotated[int, msgspec.Meta(ge=1, le=64)]
    by: Literal["producer", "id"] = "producer"
    """What decides the queue: all envelopes of a producer go into one, or each goes where its id falls."""
    ordered: bool = False
    """Each queue is consumed by one collector at a time, so that a producer's records stay in order."""


class BrokerSettings(Section):
    """`[broker]`: where messages wait."""

    url: str = ""
    """Empty: the embedded broker in the data folder. `embedded:///path/to/file` for another place;
    `amqp://user@host/vhost`, or `amqps://` with TLS, for RabbitMQ; `https://host`, the application's own address, for
    programs that only emit."""
    prefetch: Positive = 200
    """Messages a collector holds unacknowledged."""
    lease: Seconds = 30.0
    """Embedded: seconds after which messages held by a consumer that stopped renewing are delivered again."""
    max_bytes: Positive = 20 * 2**30
    """Largest size of waiting messages; publishing beyond it is refused and the emitter spools. RabbitMQ: per queue."""
    delivery_limit: Annotated[int, msgspec.Meta(ge=2)] = 100
    """A message delivered so often and never acknowledged is cut into its records: one of them kills its collectors."""
    password: str = ""
    """RabbitMQ: of the URL's user. `password_file` keeps it out of this file."""
    ca: str = ""
    """File of the authorities trusted with `amqps://` and `https://`. Empty: those of the system."""
    certificate: str = ""
    """Client certificate file, where the server asks for one."""
    key: str = ""
    """The certificate's key file."""
    heartbeat: Positive = 30
    """RabbitMQ: seconds between signs of life."""
    timeout: Seconds = 30.0
    """RabbitMQ: longest wait for a connection, or for the confirms of one call. `https://`: for all of one call, and 20
    at most."""
    max_messages: Positive = 1_000_000
    """RabbitMQ: most messages waiting in one queue."""
    management: str = ""
    """RabbitMQ: address of the management plugin. Empty: port 15672 (with TLS 15671) of the broker's host."""
    shards: dict[str, ShardSettings] = {}
    """RabbitMQ: busy kinds spread over several queues, `[broker.shards.KIND]`."""
    ordered: tuple[str, ...] = ()
    """RabbitMQ: sinks whose queues are consumed by one collector at a time, in order of arrival."""


class EmitterSettings(Section):
    """`[emitter]`: batching and spooling in programs that emit."""

    batch_records: Annotated[int, msgspec.Meta(ge=1, le=50_000)] = 5_000
    batch_bytes: Positive = 2**20
    batch_age: Seconds = 0.2
    """A killed process loses at most what was emitted in this many seconds; durable emitters lose nothing."""
    memory_bytes: Positive = 64 * 2**20
    """Records waiting in memory; beyond it new ones are refused, or wait, as `when_full` says."""
    when_full: Literal["refuse", "wait"] = "refuse"
    spool: str = ""
    """Folder for what the broker did not take. Empty: `spool` in the data folder."""
    spool_bytes: Positive = 2 * 2**30
    """Largest size of the spool; beyond it new records are refused, so that the disk is not filled."""
    compress: bool = False
    """zstd for messages; needs the extra siteward[zstd]."""


class CollectorSettings(Section):
    """`[collector]`: from the broker to the sinks."""

    batch_records: Positive = 20_000
    batch_age: Seconds = 0.2
    """Longest time in seconds that records wait for a batch to fill."""
    dead_letter_count: Positive = 10_000
    """A sink's consumer stops when more records than this were refused …"""
    dead_letter_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """… among those of the last minutes and they are more than this share of them."""
    leave_out: tuple[str, ...] = ("ledger", "prometheus")
    """Installed sinks that get no queue and no records. The ledger is one unless it is asked for: a queue and a second
    copy of every record."""


class MonitoringSettings(Section):
    """`[monitoring]`: the monitoring store."""

    url: str = ""
    """Empty: DuckDB in the data folder. `duckdb:///path/to/file` for another place; `opensearch://host:9200` or, with
    TLS, `opensearchs://user@host:9200` for OpenSearch, several hosts with commas between them."""
    memory: str = "120MB"
    """DuckDB's own memory limit; the process needs about 230 MB more."""
    threads: Positive = 2
    """DuckDB's own threads."""
    password: str = ""
    """OpenSearch: of the URL's user. `password_file` keeps it out of this file."""
    ca: str = ""
    """OpenSearch: file of the authorities trusted with `opensearchs://`. Empty: those of the system."""
    certificate: str = ""
    """OpenSearch: client certificate file, where the cluster asks for one."""
    key: str = ""
    """OpenSearch: the certificate's key file."""
    prefix: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,39}$")] = "siteward"
    """OpenSearch: how the names of all indices and templates begin; two installations never share one."""
    shards: Positive = 1
    """OpenSearch: primary shards of each new index."""
    replicas: str = "0-1"
    """OpenSearch: copies of each shard, a number or a range (`auto_expand_replicas`)."""
    refresh: Seconds = 1.0
    """OpenSearch: seconds until what was written can be found."""
    timeout: Seconds = 60.0
    """OpenSearch: longest wait for one answer."""


class BookedKindSettings(Section):
    """`[accounting.kinds.NAME]`: how long the ledger keeps one kind's records."""

    keep_records: Days
    """Its own in place of `accounting.keep_records`; 0: for ever."""


class AccountingSettings(Section):
    """`[accounting]`: the ledger."""

    url: str = ""
    """Empty: SQLite in the data folder. `sqlite:///path/to/file` for another place; `postgresql://user@host/name` or
    `mariadb://user@host/name` for a server."""
    password: str = ""
    """Of the URL's user. `password_file` keeps it out of this file."""
    leave_out: tuple[str, ...] = ()
    """Kinds that are not booked, beside those that say so themselves."""
    keep_records: Days = 0
    """Days after which single records leave the database for the archive, with all of their UTC day; their totals stay.
    0: never."""
    kinds: dict[str, BookedKindSettings] = {}
    """Kinds that are kept for another time, `[accounting.kinds.NAME]`."""
    archive: str = ""
    """Folder of the archive's files. Empty: `archive` in the data folder."""
    self_approval: bool = False
    """Whether who proposes a correction may also approve it."""


class PrometheusSettings(Section):
    """`[prometheus]`: live metrics of records, and where range queries go."""

    host: str = "127.0.0.1"
    """Address on which a collector that feeds the sink `prometheus` is scraped. Another one than loopback needs an
    issuer of tokens that is trusted, `[issuers.NAME]`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9469
    """0 takes any free port, which is logged."""
    token: str = ""
    """Of scrapers that have no token of a trusted issuer. `token_file` keeps it out of this file."""
    certificate: str = ""
    """PEM file of the certificate with its chain: TLS is spoken then."""
    key: str = ""
    """PEM file of its key, where that is another one."""
    late: Seconds = 300.0
    """Records older than this many seconds are counted as late and enter no series."""
    series: Positive = 10_000
    """Most series of one kind; label values beyond it become `other`."""
    stale: Seconds = 86_400.0
    """Counters that did not grow for so many seconds are dropped."""
    labels: dict[str, tuple[str, ...]] = {}
    """Dimensions that become labels, by kind. By default all that the kind declares live, personal and nearly unique
    ones left out. Of snapshots one of the latter may be asked for, such as a machine's name; a personal one is refused
    everywhere."""
    measures: dict[str, tuple[str, ...]] = {}
    """Measures and products that become series, by kind. By default all that the kind declares live."""
    url: str = ""
    """The Prometheus server that is asked for facts, such as `http://127.0.0.1:9090`. Empty: none is."""
    url_token: str = ""
    """Sent to it as a bearer's. `url_token_file` keeps it out of this file."""
    timeout: Seconds = 10.0
    """Longest wait for its answer, the look-up of its name and connecting included."""
    remote_write: str = ""
    """Address to which the same series are also written, for setups without scraping. Empty: nowhere."""
    remote_write_token: str = ""
    """Sent there as a bearer's. `remote_write_token_file` keeps it out of this file."""
    ca: str = ""
    """File of the authorities trusted for `url` and `remote_write` with `https://`. Empty: those of the system."""
    remote_write_every: Seconds = 15.0
    """Seconds between two sendings."""


class ServerSettings(Section):
    """`[server]`: the web application."""

    host: str = "127.0.0.1"
    """Another address than loopback needs an issuer of tokens that is trusted, `[issuers.NAME]`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    certificate: str = ""
    """PEM file of the certificate with its chain: TLS is spoken then. Empty: plain HTTP, to this machine or a proxy."""
    key: str = ""
    """PEM file of its key, where that is another one."""
    url: Annotated[str, msgspec.Meta(max_length=255)] = ""
    """Where people's browsers find it, such as `https://siteward.example.org`; issuers send them back there after
    log-in. Empty: at the loopback address that the browser asked."""


class NetworkSettings(Section):
    """`[network]`: what lies between this machine and others."""

    plain: tuple[str, ...] = ()
    """Hosts that are spoken to, and addresses that are listened on, without TLS, where nobody else can read: in a
    network of containers. Otherwise what leaves this machine has to be encrypted. Databases are asked for TLS here,
    too, unless their URLs want none."""


class GrantSettings(Section):
    """`[[issuers.NAME.grants]]`: what bearers of an issuer's tokens may do. Nobody may do what no grant says."""

    when: str
    """Of whom: `any`, `group:/dteam/ops`, `scope:siteward.report`, `entitlement:urn:mace:egi.eu:group:dteam:role=ops`,
    `host:*.site.example`, `portal:Site Administrator` (a role at the operations portal), or `subject:…`."""
    role: Literal["reader", "user", "reporter", "operator", "site-operator", "accountant", "admin", "platform-admin"]
    vos: tuple[str, ...] = ()
    """In which VOs. Empty: those that the issuer speaks for and the bearer belongs to."""
    sites: tuple[str, ...] = ()
    """Only of these sites. Empty: of all; with `portal:…` of those that the bearer has that role for."""


class IssuerSettings(Section):
    """`[issuers.NAME]`: who may issue tokens that are believed here."""

    profile: Literal["wlcg", "aarc", "local"]
    """How its tokens are read: the WLCG Common JWT Profile, AARC's guidelines as EGI Check-in follows them, or ours."""
    url: Annotated[str, msgspec.Meta(max_length=255)] = ""
    """Its exact name, as tokens have it (`iss`). Below it the issuer describes itself. Our own one needs none."""
    vos: tuple[str, ...] = ()
    """The VOs it speaks for: of `wlcg` exactly one."""
    audiences: tuple[str, ...] = ()
    """Names of this service in tokens (`aud`), such as `https://siteward.example.org`."""
    any_audience: bool = True
    """`wlcg`: whether tokens for any service (`https://wlcg.cern.ch/jwt/v1/any`) are accepted."""
    clients: tuple[str, ...] = ()
    """`aarc`: clients (`azp`) whose tokens are accepted without an audience."""
    namespace: str = "urn:mace:egi.eu"
    """`aarc`: where the groups that are VOs stand; those of other namespaces are no VOs."""
    userinfo: bool = False
    """Whether entitlements come from the issuer's userinfo, as Check-in's do, and are asked for there."""
    person: str = "sub"
    """The claim that holds what records call a person."""
    client: str = ""
    """Our name there (`client_id`), by which people log in with a browser. Empty: they cannot, at this issuer."""
    client_secret: str = ""
    """Ours. `client_secret_file` keeps it out of this file. Empty: a public client; every log-in has its own proof."""
    device_client: str = ""
    """The name of our command line there, a public client with the device flow, for `siteward login`."""
    scopes: tuple[str, ...] = ()
    """What is asked for at log-in. Empty: `openid`, and with it `wlcg.groups`, or `eduperson_entitlement`."""
    ca: str = ""
    """File of the authorities trusted for its address. Empty: those of the system."""
    grants: tuple[GrantSettings, ...] = ()


class CredentialsSettings(Section):
    """`[credentials]`: what a program that emits to `https://…` proves itself with: its own name at an issuer.

    Without it, the program sends the token that is found where every tool of the grid looks (`BEARER_TOKEN`,
    `BEARER_TOKEN_FILE`, …).
    """

    issuer: Annotated[str, msgspec.Meta(max_length=255)] = ""
    """The issuer's exact name, as the application's settings have it. Needs the extra siteward[service]."""
    client: str = ""
    """The program's name there (`client_id`)."""
    client_secret: str = ""
    """Its secret. `client_secret_file` keeps it out of this file."""
    scopes: tuple[str, ...] = ("siteward.report",)
    """What is asked for."""
    audience: str = ""
    """The service that the token is for. Empty: the address in `broker.url`."""
    ca: str = ""
    """File of the authorities trusted for the issuer's address. Empty: those of the system."""


class AccessSettings(Section):
    """`[access]`: what is known of tokens and people."""

    url: str = ""
    """Database. Empty: SQLite in the data folder; `postgresql://user@host/name` or `mariadb://user@host/name` where
    several machines answer requests."""
    password: str = ""
    """Of the URL's user. `password_file` keeps it out of this file."""
    issuer_file: str = ""
    """File with the keys of our own issuer. Empty: `issuer.json` in the data folder, made at need."""
    names: bool = True
    """Answers show people's names to those who may see them; false shows pseudonyms to everybody."""
    pseudonym_key: str = ""
    """Of pseudonyms, 32 random characters or more. Empty: the file `pseudonym.key` of the data folder, made at need."""


class VoSettings(Section):
    """`[gateway.vos.NAME]`: what one VO may send."""

    rate: Annotated[float, msgspec.Meta(ge=0)]
    """Its own in place of `vo_rate`; 0 for any."""


class GatewaySettings(Section):
    """`[gateway]`: records over HTTP."""

    max_body: Positive = 64 * 2**20
    """Largest request body in bytes, before decompression."""
    max_plain: Positive = 512 * 2**20
    """Largest request body in bytes, after decompression."""
    max_record: Positive = 64 * 2**10
    """Largest single record in bytes."""
    receipts_days: Positive = 7
    max_waiting: Positive = 2_000_000
    """Records waiting in a queue beyond which the gateway answers 429; from three quarters of them on, to VOs that have
    more than a fair share of what waits."""
    producer_at_once: Annotated[int, msgspec.Meta(ge=1, le=16)] = 8
    """Requests of one producer that are read at the same time, of 16, where nobody else sends: as many as are left free
    then. The more others hold, the fewer; a further one is answered 429, but never the only one of a VO."""
    vo_at_once: Annotated[int, msgspec.Meta(ge=1, le=16)] = 12
    """The same of all producers of one VO together: alone three times as many as are left free for other VOs."""
    producer_rate: Annotated[float, msgspec.Meta(ge=0)] = 10_000.0
    """Records per second that one producer may send in the long run; 0 for any. More than ten seconds' worth at once is
    answered 429."""
    vo_rate: Annotated[float, msgspec.Meta(ge=0)] = 20_000.0
    """The same for all producers of one VO together."""
    vos: dict[str, VoSettings] = {}
    """VOs with a rate of their own, `[gateway.vos.NAME]`."""


class ProbeSettings(Section):
    """`[probe]`: what the host probe says of this machine."""

    site: str = "local"
    vo: str = "local"
    interval: Seconds = 5.0
