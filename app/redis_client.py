"""Redis clients, made from one URL: a single server, one behind Sentinel, or a cluster; with TLS and ACL users.

    redis://[user:password@]host[:6379][/db]            rediss:// with TLS            unix:///path/to.sock[?db=0]
    redis+sentinel://[user:password@]host[:26379][,host…][/db]?service=NAME           rediss+sentinel:// with TLS
    redis+cluster://[user:password@]host[:6379][,host…]                               rediss+cluster:// with TLS

Options behind ``?``: ``db``, ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile`` (paths), ``ssl_cert_reqs`` (none,
optional, required), ``ssl_check_hostname``; with Sentinel also ``service`` (the master's name, ``mymaster`` if not
given), ``sentinel_username`` and ``sentinel_password``. Special characters in names and passwords are percent-encoded.

redis-py's own defaults would let one command against a hung server take a minute, and repeat an INCR that timed out:
here timeouts are short and nothing is repeated in hiding. RESP2, since with RESP3 the server may stretch timeouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl, unquote

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from app.errors import Misconfigured, Unavailable

CONNECT_SECONDS = 0.5
_PROTOCOL = 2
_DEFAULT_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"})

Kind = Literal["single", "sentinel", "cluster"]

# What a client raises when Redis is away, hung, or refuses; a cluster's client does not stick to redis-py's own tree, and
# uvloop says RuntimeError to who writes to a connection that was reset a moment ago.
FAILURES: Final = (redis.RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names. Its repr holds no password.

    Args:
        nodes: (host, port); one, or where to begin.
        options: for every connection to a data node, as redis-py names them.
        sentinel_options: for connections to the sentinels themselves.
        service: the master's name among the sentinels.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)
    service: str = ""


def parse(url: str) -> Target:
    """Read a Redis URL.

    Raises:
        Misconfigured: says what is wrong, and quotes nothing of the URL, which may hold a password.
    """
    scheme, found, rest = url.partition("://")
    address, _, query = rest.partition("?")
    transport, _, kind = scheme.partition("+")
    if not found or transport not in {"redis", "rediss", "unix"} or kind not in {"", "sentinel", "cluster"}:
        raise _wrong("the scheme is one of redis, rediss, unix, redis[s]+sentinel, redis[s]+cluster")
    authority, _, path = address.partition("/")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if transport == "unix":
        if kind or not path:
            raise _wrong("unix:// is followed by the path of one socket")
        options = _options(authority, "", given) | {"unix_socket_path": f"/{unquote(path)}"}
        _done(given)
        return Target("single", (), options, {})
    return _remote(cast("Kind", kind or "single"), authority, path, given, tls=transport == "rediss")


def _remote(kind: Kind, authority: str, path: str, given: dict[str, str], *, tls: bool) -> Target:
    security = _tls_options(given) if tls else {}
    service = given.pop("service", "mymaster") if kind == "sentinel" else ""
    sentinel_options: dict[str, Any] = dict(security)
    if kind == "sentinel":
        for name in ("username", "password"):
            if f"sentinel_{name}" in given:
                sentinel_options[name] = given.pop(f"sentinel_{name}")
    options = _options(authority, path, given) | security
    nodes = tuple(_node(host, kind) for host in authority.rpartition("@")[2].split(","))
    _done(given)
    if kind == "single" and len(nodes) > 1:
        raise _wrong("several hosts need redis+sentinel:// or redis+cluster://")
    if kind == "cluster" and options.pop("db"):
        raise _wrong("a cluster has only database 0")
    return Target(kind, nodes, options, sentinel_options, service)


def _options(authority: str, path: str, given: dict[str, str]) -> dict[str, Any]:
    credentials = authority.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    database = given.pop("db", "") or path or "0"
    if not (database.isascii() and database.isdigit()):
        raise _wrong("the database is a number")
    options: dict[str, Any] = {"db": int(database)}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    return options


def _tls_options(given: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {"ssl": True} | {name: given.pop(name) for name in _TLS_OPTIONS & given.keys()}
    if "ssl_check_hostname" in given:
        options["ssl_check_hostname"] = given.pop("ssl_check_hostname").lower() not in {"0", "false", "no"}
    return options


def _node(text: str, kind: Kind) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _wrong("a port is a number below 65536")
    return unquote(host.removeprefix("[").removesuffix("]")) or "127.0.0.1", int(port or _DEFAULT_PORTS[kind])


def _done(given: Mapping[str, str]) -> None:
    if given:
        raise _wrong(f"unknown option {min(given)[:40]!r}")


def _wrong(what: str) -> Misconfigured:
    return Misconfigured(f"Redis URL: {what}")


# ------------------------------------------------------------------------------------------- clients

# Parts of redis-py's Sentinel and cluster clients have no types: hence the ignores.


def open_async(
    url: str,
    *,
    timeout_seconds: float,
    connect_seconds: float | None = None,
    max_connections: int = 100,
    protocol: int = _PROTOCOL,
    decode_responses: bool = False,
) -> redis.asyncio.Redis:
    """A client for the event loop; connects when it is first used. Close it with ``aclose()``.

    A cluster's client has the same commands; those on several keys need keys that share a hash tag.

    Args:
        timeout_seconds: the longest wait for a reply.
        connect_seconds: the longest wait for a connection; `timeout_seconds` if not given.
        max_connections: a command that finds all of them taken fails at once.

    Raises:
        Misconfigured: see `parse`.
    """
    target = parse(url)
    connect = timeout_seconds if connect_seconds is None else connect_seconds
    retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
    every: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": connect,
        "max_connections": max_connections,
        "protocol": protocol,
        "decode_responses": decode_responses,
        "retry": retry,
    }
    options = {**target.options, **every}
    if target.kind == "cluster":
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in target.nodes]
        return cast("redis.asyncio.Redis", _AsyncCluster(startup_nodes=nodes, **options))
    if target.kind == "sentinel":
        asking = {
            **target.sentinel_options,
            "socket_timeout": connect,
            "socket_connect_timeout": connect,
            "retry": retry,
        }
        sentinel = redis.asyncio.sentinel.Sentinel(list(target.nodes), sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
        return cast(
            "redis.asyncio.Redis", sentinel.master_for(target.service, connection_pool_class=_AsyncSentinelPool)
        )
    return redis.asyncio.Redis(**options, **_where(target))


def open_watch(url: str, *, block_seconds: float, max_connections: int = 4) -> redis.asyncio.Redis:
    """A client for blocking reads: connections of its own, whose timeout lies above the longest block.

    Args:
        max_connections: so many reads at once.

    Raises:
        Misconfigured: see `parse`.
    """
    return open_async(
        url,
        timeout_seconds=block_seconds + CONNECT_SECONDS,
        connect_seconds=CONNECT_SECONDS,
        max_connections=max_connections,
    )


def open_blocking(url: str, *, timeout_seconds: float = CONNECT_SECONDS, decode_responses: bool = False) -> redis.Redis:
    """A client for a thread that may wait. That of a cluster connects at once, the others when they are first used.

    Raises:
        Misconfigured: see `parse`.
        Unavailable: no node of the cluster answers.
    """
    target = parse(url)
    retry = redis.retry.Retry(NoBackoff(), 0)
    every: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "protocol": _PROTOCOL,
        "decode_responses": decode_responses,
        "retry": retry,
    }
    options = {**target.options, **every}
    if target.kind == "cluster":
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in target.nodes]  # type: ignore[no-untyped-call]
        try:
            return cast("redis.Redis", redis.cluster.RedisCluster(startup_nodes=nodes, **options))
        except FAILURES as error:
            raise Unavailable(f"Redis cluster: {type(error).__name__}", retry_after=1.0) from error
    if target.kind == "sentinel":
        waits = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        asking = {**target.sentinel_options, **waits, "retry": retry}
        sentinel = redis.sentinel.Sentinel(list(target.nodes), sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
        return cast("redis.Redis", sentinel.master_for(target.service, connection_pool_class=_SentinelPool))  # type: ignore[no-untyped-call]
    return redis.Redis(**options, **_where(target))


def _where(target: Target) -> dict[str, Any]:
    return {"host": target.nodes[0][0], "port": target.nodes[0][1]} if target.nodes else {}


class _AsyncCluster(redis.asyncio.cluster.RedisCluster):
    """Closes its connections also when one command has just lost the cluster while another one still had its own open:
    then redis-py's own takes itself for closed."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")


class _AsyncSentinelPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Closes the connections to the sentinels with those to the master; nobody else holds them."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


class _SentinelPool(redis.sentinel.SentinelConnectionPool):
    """As `_AsyncSentinelPool`."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()
