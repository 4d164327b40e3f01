"""Settings: read once, from ``config/settings.toml`` and the environment (which wins), into a frozen value.

Rooms get their slice as an argument (``settings.registry``); none of them reads the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from app.errors import Misconfigured

ROOT = Path(__file__).resolve().parent.parent
CONFIG_DIR = ROOT / "config"


_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class _Slice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegistrySettings(_Slice):
    namespace: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    lease_seconds: float = Field(gt=0)
    heartbeat_seconds: float = Field(gt=0)
    poll_seconds: float = Field(gt=0)
    log_length: int = Field(gt=0)
    allowed_networks: tuple[IPv4Network | IPv6Network, ...]


class ServiceCallSettings(_Slice):
    """How one service is called; what is not set is as for all."""

    timeout_seconds: float | None = Field(default=None, gt=0)
    attempt_seconds: float | None = Field(default=None, ge=0)
    retries: int | None = Field(default=None, ge=0, le=5)
    # All idempotent calls, or those under these path prefixes.
    hedge: bool | tuple[str, ...] = False
    # The last good reply to the same GET stands in for a failure if it is no older.
    stale_seconds: float = Field(default=0, ge=0)

    def hedges(self, path: str) -> bool:
        """Whether idempotent calls of `path` are hedged."""
        if isinstance(self.hedge, bool):
            return self.hedge
        return any(path == prefix or path.startswith((f"{prefix}/", f"{prefix}?")) for prefix in self.hedge)


class ClientSettings(_Slice):
    timeout_seconds: float = Field(gt=0)
    connect_timeout_seconds: float = Field(gt=0)
    # An idempotent attempt that has been silent for so long goes to another peer, if there is one; 0: never.
    attempt_seconds: float = Field(ge=0)
    max_connections_per_peer: int = Field(gt=0)
    max_reply_bytes: int = Field(gt=0)
    retries: int = Field(ge=0, le=5)
    # Retries and hedges of a service: this share of its calls, and so many a second.
    retry_share: float = Field(ge=0, le=1)
    retries_per_second: float = Field(ge=0)
    # Of replies kept for `stale_seconds`.
    max_stale_bytes: int = Field(ge=0)
    services: Mapping[str, ServiceCallSettings] = {}


StrategyName = Literal["p2c", "least", "round_robin", "rendezvous"]


class BalancingSettings(_Slice):
    strategy: StrategyName
    strategies: Mapping[str, StrategyName] = {}
    zone_spill: float = Field(gt=0, le=1)
    slow_start_seconds: float = Field(ge=0)
    ejection: bool


class BreakerSettings(_Slice):
    enabled: bool
    failure_share: float = Field(gt=0, le=1)
    slow_share: float = Field(ge=0, le=1)
    open_seconds: float = Field(gt=0)


class ServingSettings(_Slice):
    max_concurrent: int = Field(ge=4)
    gateway_max_concurrent: int = Field(ge=4)
    adaptive: bool
    patience_seconds: float = Field(gt=0)
    max_loop_lag_seconds: float = Field(gt=0)
    head_seconds: float = Field(gt=0)
    body_grace_seconds: float = Field(gt=0)
    min_body_bytes_per_second: int = Field(gt=0)
    drain_notice_seconds: float = Field(ge=0)


class CacheSettings(_Slice):
    max_entries: int = Field(gt=0)
    max_bytes: int = Field(gt=0)
    max_value_bytes: int = Field(gt=0)
    ttl_seconds: float = Field(gt=0)
    negative_seconds: float = Field(ge=0)
    stale_seconds: float = Field(ge=0)
    retry_seconds: float = Field(ge=0)
    jitter: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0)
    redis_timeout_seconds: float = Field(gt=0)
    lock_seconds: float = Field(gt=0)
    wait_seconds: float = Field(ge=0)
    load_seconds: float = Field(gt=0)
    watch_seconds: float = Field(gt=0)
    unwatched_seconds: float = Field(ge=0)


class DataSettings(_Slice):
    pool_size: int = Field(gt=0)
    pool_overflow: int = Field(ge=0)
    statement_timeout_seconds: float = Field(gt=0)


class EventSettings(_Slice):
    """How events are sent and handled; the same for all services that hear one another."""

    partitions: int = Field(gt=0, le=256)
    lease_seconds: float = Field(gt=0)
    concurrency: int = Field(gt=0)
    handler_seconds: float = Field(gt=0)
    tries: int = Field(gt=0)
    retry_seconds: float = Field(gt=0)
    retry_max_seconds: float = Field(gt=0)
    check_seconds: float = Field(gt=0)
    stream_hours: float = Field(gt=0)
    stream_length: int = Field(gt=0)
    retention_hours: float = Field(gt=0)
    max_dead: int = Field(gt=0)
    redis_timeout_seconds: float = Field(gt=0)


class OrderSettings(_Slice):
    """The demo's orders."""

    # One that the inventory has not answered by then is given up.
    timeout_seconds: float = Field(gt=0)


class AuthSettings(_Slice):
    """How tokens are verified, and what a service calls itself when it fetches its own."""

    issuer: str = Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*[^/?#\s])?$")
    audience: str = Field(pattern=r"^[\x21-\x7e]{1,200}$")
    leeway_seconds: float = Field(ge=0, le=300)
    max_token_bytes: int = Field(gt=0)
    cached_tokens: int = Field(ge=0)
    keys_seconds: float = Field(gt=0)
    keys_retry_seconds: float = Field(gt=0)
    introspection_seconds: float = Field(ge=0)
    # Fixed public keys in the place of the identity service's: another issuer's, or a test's.
    jwks_file: Path | None = None
    # What the gateway asks of tokens before it hands a request on: public prefix → scopes, one of which will do.
    edge: Mapping[str, tuple[str, ...]] = {}
    # By default the service's own name.
    client_id: str | None = None
    # Without it, calls to peers carry no token.
    client_secret: SecretStr | None = None

    @field_validator("edge")
    @classmethod
    def _check_edge(cls, edge: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for prefix, scopes in edge.items():
            if not _PREFIX.fullmatch(prefix) or not scopes or not all(scopes):
                raise ValueError("a path prefix as in /orders, with at least one scope")
        return edge


class IdentitySettings(_Slice):
    """The authorization server's."""

    algorithm: Literal["ES256", "EdDSA"]
    access_token_seconds: float = Field(gt=0, le=86_400)
    refresh_token_seconds: float = Field(gt=0)
    refresh_grace_seconds: float = Field(ge=0, le=60)
    code_seconds: float = Field(gt=0, le=600)
    device_code_seconds: float = Field(gt=0)
    device_interval_seconds: float = Field(gt=0)
    session_seconds: float = Field(gt=0)
    key_days: float = Field(gt=0)
    key_overlap_seconds: float = Field(gt=0)
    registration: bool
    lockout_failures: int = Field(gt=0)
    lockout_seconds: float = Field(gt=0)
    lockout_max_seconds: float = Field(gt=0)
    audit_days: float = Field(gt=0)
    # Encrypts the signing keys where they are stored.
    key_secret: SecretStr | None = None


class Settings(BaseSettings):
    """Everything that one process may be told."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="MESH_",
        env_nested_delimiter="__",
        toml_file=CONFIG_DIR / "settings.toml",
        populate_by_name=True,
    )

    env: Literal["development", "test", "production"]
    service: str | None = None
    host: str
    # Whose X-Forwarded-* headers the gateway believes: none, unless a proxy stands before it.
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    port: int = Field(default=0, ge=0, le=65535)
    advertise_url: str | None = None
    # A listening socket that was inherited: who starts processes keeps the port while one follows another.
    listen_fd: int | None = Field(default=None, ge=3)
    # Opens /_mesh to who knows it; without it, nobody.
    management_token: SecretStr | None = None
    data_dir: Path = ROOT / ".mesh"
    # Secret: a URL may carry a password, and settings are printed in errors and logs.
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias=AliasChoices("REDIS_URL", "MESH_REDIS_URL")
    )
    database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL", "MESH_DATABASE_URL")
    )
    # A replica of it, for reads that may be a little behind.
    read_database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_READ_URL", "MESH_DATABASE_READ_URL")
    )
    version: str = "dev"
    zone: str = "local"
    # This process's share of the load relative to the others; 0: none.
    weight: float = Field(default=1.0, ge=0, le=1000)
    # Only requests that carry this name come here, as in feature-x.
    sandbox: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,128}$")
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "json", "console"]
    request_timeout_seconds: float = Field(gt=0)
    max_body_bytes: int = Field(gt=0)
    worker_threads: int = Field(gt=0)
    drain_seconds: float = Field(ge=0)
    registry: RegistrySettings
    client: ClientSettings
    cache: CacheSettings
    balancing: BalancingSettings
    breaker: BreakerSettings
    serving: ServingSettings
    data: DataSettings
    events: EventSettings
    auth: AuthSettings
    identity: IdentitySettings
    orders: OrderSettings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def secrets_file(self) -> Path:
        """The demo's secrets, where there is a demo."""
        return self.data_dir / "secrets.json"

    def database_url_of(self, service: str) -> str:
        """The service's own database: ``DATABASE_URL``, else a SQLite file in the data directory."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / f'{service}.sqlite3'}"

    @property
    def read_url(self) -> str | None:
        """The database's replica, if there is one."""
        return None if self.read_database_url is None else self.read_database_url.get_secret_value()


def load(**overrides: object) -> Settings:
    """Read the settings; `overrides` win over everything (tests and the command line).

    Raises:
        Misconfigured: names each wrong key, never its value (it may be a secret).
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the command line gives
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"Settings: {problems}") from None
