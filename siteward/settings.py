"""Settings: one TOML file, environment over it, checked once at start; nothing configured is the embedded default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from siteward.hiding import holds_password
from siteward.plain_text import check_encrypted, check_served
from siteward.records.doors import nearest
from siteward.settings_sections import (
    SECRET_NAMES,
    SECRETS,
    AccessSettings,
    AccountingSettings,
    BrokerSettings,
    CollectorSettings,
    CredentialsSettings,
    EmitterSettings,
    GatewaySettings,
    GrantSettings,
    IssuerSettings,
    MonitoringSettings,
    NetworkSettings,
    ProbeSettings,
    PrometheusSettings,
    Section,
    ServerSettings,
    ShardSettings,
)

__all__ = [
    "APART",
    "PREFIX",
    "SECRETS",
    "SECRET_NAMES",
    "AccessSettings",
    "AccountingSettings",
    "BrokerSettings",
    "CollectorSettings",
    "CredentialsSettings",
    "EmitterSettings",
    "GatewaySettings",
    "GrantSettings",
    "IssuerSettings",
    "MonitoringSettings",
    "NetworkSettings",
    "ProbeSettings",
    "PrometheusSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "ShardSettings",
    "load_settings",
    "told_passwords",
]

PREFIX: Final = "SITEWARD_"
APART: Final = (f"{PREFIX}CONFIG", f"{PREFIX}PERSON", f"{PREFIX}VO")
"""Variables that are no settings: where they are, and who runs a command."""


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the key, the value and what is possible."""

    permanent = True


class Settings(Section):
    """Everything that can be configured; see docs/reference/settings.md."""

    data: str = ""
    """Folder for all files of ours. Empty: `siteward` in the user's data folder (XDG_DATA_HOME)."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    broker: BrokerSettings = BrokerSettings()
    credentials: CredentialsSettings = CredentialsSettings()
    emitter: EmitterSettings = EmitterSettings()
    collector: CollectorSettings = CollectorSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    accounting: AccountingSettings = AccountingSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    server: ServerSettings = ServerSettings()
    network: NetworkSettings = NetworkSettings()
    gateway: GatewaySettings = GatewaySettings()
    probe: ProbeSettings = ProbeSettings()
    access: AccessSettings = AccessSettings()
    issuers: dict[str, IssuerSettings] = {}  # noqa: RUF012  # msgspec copies it.
    """Who may issue tokens: `[issuers.NAME]` (docs/how-to/let-people-in.md)."""
    kinds: dict[str, Any] = {}  # noqa: RUF012  # as above.
    """Record kinds declared here: `[kinds.NAME]` (docs/how-to/add-a-kind.md)."""

    def __post_init__(self) -> None:
        """Refuse what would leave this machine in the clear, however the settings were made.

        Databases, whose URLs only their drivers read well, refuse it themselves.

        Raises:
            SettingsError: saying what to write.
        """
        _check_encrypted(self)

    @property
    def folder(self) -> Path:
        """The data folder."""
        if self.data:
            return Path(self.data).expanduser()
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "siteward"

    @property
    def broker_url(self) -> str:
        """The broker's URL, the embedded default filled in."""
        return self.broker.url or f"embedded://{self.folder / 'broker.sqlite'}"

    @property
    def monitoring_url(self) -> str:
        """The monitoring store's URL, the embedded default filled in."""
        return self.monitoring.url or f"duckdb://{self.folder / 'monitoring.duckdb'}"

    @property
    def accounting_url(self) -> str:
        """The ledger's URL, the embedded default filled in."""
        return self.accounting.url or f"sqlite:///{self.folder / 'accounting.sqlite'}"

    @property
    def access_url(self) -> str:
        """The URL of the database of access, the embedded default filled in."""
        return self.access.url or f"sqlite:///{self.folder / 'access.sqlite'}"

    @property
    def issuer_file(self) -> Path:
        """The file with the keys of our own issuer."""
        given = self.access.issuer_file
        return Path(given).expanduser() if given else self.folder / "issuer.json"

    @property
    def spool(self) -> Path:
        """The emitter's spool folder; what is on its way to an application has one of its own within it.

        Else another program of the user, with another broker, would send it there, or under another name.
        """
        folder = Path(self.emitter.spool).expanduser() if self.emitter.spool else self.folder / "spool"
        if not self.broker.url.lower().startswith(("http:", "https:")):
            return folder
        whose = "\n".join((self.broker.url.rstrip("/"), self.credentials.issuer, self.credentials.client))
        return folder / blake2b(whose.encode(), digest_size=8).hexdigest()


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings.

    Args:
        path: the TOML file; None takes SITEWARD_CONFIG, else `siteward.toml` in the working directory if it is
            there, else nothing.
        environ: the environment; `SITEWARD_BROKER__URL` goes over `url` in `[broker]`.

    Raises:
        SettingsError: unknown key (with the nearest known one), wrong type, unreadable file.
    """
    environ = os.environ if environ is None else environ
    table = _read(path, environ)
    for variable, text in sorted(environ.items()):
        if variable.startswith(PREFIX) and variable not in APART:
            _overlay(table, variable, text)
    _read_secrets(table)
    _refuse_unknown(Settings, table, "")
    try:
        settings = msgspec.convert(table, Settings, strict=True)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        message = f"setting {place.strip('`')}: {text}" if place else text
        raise SettingsError(message) from error
    _check_credentials(settings.credentials)
    return settings


def told_passwords(settings: Settings) -> list[str]:
    """What to say of each URL that holds a password, which everybody reads who may read the settings' file."""
    return [
        f"setting {section}.url holds a password: keep it in a file of its own, which {section}.password_file names"
        for section in ("access", "accounting", "broker", "monitoring")
        if holds_password(getattr(settings, section).url)
    ]


def _check_credentials(credentials: CredentialsSettings) -> None:
    """Half of them would be found to be no whole when the first record is sent."""
    given = {name: getattr(credentials, name) for name in ("issuer", "client", "client_secret")}
    missing = [f"credentials.{name}" for name, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        message = f"setting {missing[0]} is missing; a program proves itself by issuer, client and client_secret"
        raise SettingsError(message)


def _check_encrypted(settings: Settings) -> None:
    for setting, url in (
        ("broker.url", settings.broker.url),
        ("broker.management", settings.broker.management),
        ("monitoring.url", settings.monitoring.url),
        ("prometheus.url", settings.prometheus.url),
        ("prometheus.remote_write", settings.prometheus.remote_write),
    ):
        try:
            check_encrypted(setting, url, settings.network.plain)
        except ValueError as error:
            raise SettingsError(str(error)) from error
    for section, served in (("server", settings.server), ("prometheus", settings.prometheus)):
        try:
            check_served(section, served.host, served.certificate, settings.network.plain)
        except ValueError as error:
            raise SettingsError(str(error)) from error


def _read(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    if path is None and environ.get(f"{PREFIX}CONFIG"):
        path = Path(environ[f"{PREFIX}CONFIG"])
    if path is None:
        path = Path("siteward.toml")
        if not path.is_file():
            return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        message = f"settings file {path}: {error}"
        raise SettingsError(message) from error


def _overlay(table: dict[str, Any], variable: str, text: str) -> None:
    """Put one environment variable over the table; its type is taken from the setting it names."""
    names = variable.removeprefix(PREFIX).lower().split("__")
    section: Any = Settings
    for name in names[:-1]:
        section = _field_types(section).get(name)
        table = table.setdefault(name, {})
        if not (isinstance(section, type) and issubclass(section, Section)) or not isinstance(table, dict):
            message = f"environment variable {variable}: {name!r} is not a table of the settings"
            raise SettingsError(message)
    wanted = _field_types(section).get(names[-1])
    try:
        table[names[-1]] = text if wanted is None else msgspec.convert(_listed(text, wanted), wanted, strict=False)
    except msgspec.ValidationError as error:
        message = f"environment variable {variable}: {error}"
        raise SettingsError(message) from error


def _listed(text: str, wanted: Any) -> Any:  # noqa: ANN401  # types as annotations give them.
    """A text as it is, or as a list, comma between its elements, where the setting is one."""
    if get_origin(wanted) not in {list, tuple}:
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _field_types(section: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def _read_secrets(table: dict[str, Any]) -> None:
    for secret in SECRETS:
        section, _, name = secret.rpartition(".")
        for place, values in _tables(table, section):
            if f"{name}_file" not in values:
                continue
            path = Path(str(values.pop(f"{name}_file"))).expanduser()
            try:
                values[name] = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeError) as error:
                message = f"setting {place}.{name}_file: {error}"
                raise SettingsError(message) from error


def _tables(table: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables at a place, each with its own; a star at the end stands for all that are there."""
    section, star, _ = place.partition(".*")
    found = table.get(section)
    if isinstance(found, dict):
        within = {f"{section}.{name}": each for name, each in found.items()} if star else {section: found}
        yield from ((name, each) for name, each in within.items() if isinstance(each, dict))


def _refuse_unknown(section: type[msgspec.Struct], table: dict[str, Any], place: str) -> None:
    types = _field_types(section)
    known = (*types, *(secret.rpartition(".")[2] + "_file" for secret in SECRETS if secret.startswith(f"{place}.")))
    for name, value in table.items():
        where = f"{place}.{name}" if place else name
        if name not in types:
            message = f"setting {where!r} is unknown{nearest(name, known)}"
            raise SettingsError(message)
        inner = types[name]
        inner = get_args(inner)[0] if get_origin(inner) is Annotated else inner
        if isinstance(inner, type) and issubclass(inner, Section) and isinstance(value, dict):
            _refuse_unknown(inner, value, where)
