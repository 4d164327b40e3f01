"""Redis by URL: every formation as real processes, with the mesh on top of it."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from app import redis_client
from app.errors import Misconfigured, Unavailable
from app.mesh import Mesh
from app.mesh.keys import Keys
from app.mesh.registry import operations
from app.mesh.registry.runner import BlockingRegistry, Registry
from app.redis_client import Target, parse
from tests import redis_servers
from tests.mesh.actors import fast_settings, mesh_of, redis_line, until
from tests.redis_servers import PASSWORD, URL_PASSWORD

NAMESPACE = "town"

# ------------------------------------------------------------------------------------------ the URL


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "options"),
    [
        ("redis://", "single", (("127.0.0.1", 6379),), {"db": 0}),
        ("redis://h", "single", (("h", 6379),), {"db": 0}),
        ("redis://h:1/3", "single", (("h", 1),), {"db": 3}),
        ("redis://h?db=4", "single", (("h", 6379),), {"db": 4}),
        ("redis://[::1]:7", "single", (("::1", 7),), {"db": 0}),
        ("redis://[::1]", "single", (("::1", 6379),), {"db": 0}),
        ("redis://me:p%40%2F%3Aw@h", "single", (("h", 6379),), {"db": 0, "username": "me", "password": "p@/:w"}),
        ("redis://:pw@h", "single", (("h", 6379),), {"db": 0, "password": "pw"}),
        ("unix:///run/r.sock?db=2", "single", (), {"db": 2, "unix_socket_path": "/run/r.sock"}),
        ("unix://me:pw@/r", "single", (), {"db": 0, "username": "me", "password": "pw", "unix_socket_path": "/r"}),
        ("rediss://h?ssl_ca_certs=/ca&ssl_check_hostname=no", "single", (("h", 6379),),
         {"db": 0, "ssl": True, "ssl_ca_certs": "/ca", "ssl_check_hostname": False}),
        ("redis+cluster://a,b:2", "cluster", (("a", 6379), ("b", 2)), {}),
        ("rediss+cluster://u:p@a", "cluster", (("a", 6379),), {"username": "u", "password": "p", "ssl": True}),
        ("redis+sentinel://a,b:2,[::1]:3/1?service=x", "sentinel", (("a", 26379), ("b", 2), ("::1", 3)), {"db": 1}),
    ],
)  # fmt: skip
def test_a_url_names_the_nodes_and_how_to_speak_to_them(
    url: str, kind: str, nodes: tuple[tuple[str, int], ...], options: dict[str, Any]
) -> None:
    target = parse(url)
    assert (target.kind, target.nodes, target.options) == (kind, nodes, options)


def test_the_sentinels_have_a_user_and_a_password_of_their_own() -> None:
    target = parse("rediss+sentinel://u:p@h?sentinel_username=w&sentinel_password=q&ssl_ca_certs=/ca")
    assert target.service == "mymaster"
    tls = {"ssl": True, "ssl_ca_certs": "/ca"}
    assert (target.options, target.sentinel_options) == (
        {"db": 0, "username": "u", "password": "p"} | tls,
        {"username": "w", "password": "q"} | tls,
    )


@pytest.mark.parametrize(
    "url",
    ["", "h:6379", "http://h", "redis+other://h", "unix+cluster:///x", "unix://", "redis://h:x", "redis://h:0", "redis://h:99999",
     "redis://h/x", "redis://h?db=x", "redis://a,b", "redis+cluster://h/1", "redis://h?socket_timeout=9", "redis://h?ssl_ca_certs=/x",
     "redis://h?service=x"],
)  # fmt: skip
def test_a_url_that_cannot_be_meant_is_refused_without_quoting_it(url: str) -> None:
    secret = url.replace("://", f"://me:{URL_PASSWORD}@", 1)
    for each in (url, secret):
        with pytest.raises(Misconfigured) as raised:
            parse(each)
        assert URL_PASSWORD not in str(raised.value.detail)


def test_what_a_url_names_is_printed_without_its_password() -> None:
    assert "geheim" not in repr(parse("redis+sentinel://u:geheim@h?sentinel_password=geheim"))
    assert isinstance(parse("redis://h"), Target)


# ------------------------------------------------------------------------------------------ timeouts and errors

KINDS = ["redis://{}", "redis+sentinel://{}", "redis+cluster://{}"]


class Silent:
    """Accepts connections, answers nothing; counts what it is told, and who is still there."""

    def __init__(self) -> None:
        self.heard = self.connected = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        while await reader.read(65_536):
            self.heard += 1
        self.connected -= 1
        writer.transport.abort()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_says_nothing_is_asked_once_and_the_error_names_no_password(kind: str) -> None:
    silent = Silent()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = kind.format(f"me:{URL_PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}")
    client = redis_client.open_async(url, timeout_seconds=0.1)
    with pytest.raises(Unavailable) as raised:
        await Registry(client, Keys(NAMESPACE)).position()
    await client.aclose()
    await until(lambda: (silent.heard, silent.connected) == (1, 0))
    blocking = BlockingRegistry(url)
    with pytest.raises(Unavailable) as raised_too:
        await asyncio.to_thread(blocking.run, operations.snapshot(Keys(NAMESPACE)))
    await until(lambda: (silent.heard, silent.connected) == (2, 0))
    for error in (raised.value, raised_too.value):
        assert PASSWORD not in "".join(traceback.format_exception(error))
    server.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_was_cancelled_while_it_connected_leaves_no_connection_when_it_is_closed(kind: str) -> None:
    silent = Silent()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    client = redis_client.open_async(kind.format(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), timeout_seconds=60)
    asking = asyncio.create_task(Registry(client, Keys(NAMESPACE)).position())
    await until(lambda: silent.heard)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await client.aclose()
    await until(lambda: not silent.connected)
    server.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_not_there_is_unavailable(kind: str) -> None:
    url = kind.format("127.0.0.1:1")
    watch = redis_client.open_watch(url, block_seconds=1)
    with pytest.raises(Unavailable):
        await Registry(watch, Keys(NAMESPACE)).changes(0, block_seconds=1)
    await watch.aclose()
    with pytest.raises(Unavailable):
        BlockingRegistry(url).run(operations.snapshot(Keys(NAMESPACE)))


# ------------------------------------------------------------------------------------------ the mesh on each of them


def ids(mesh: Mesh) -> list[str]:
    return [peer.id for peer in mesh.directory.instances("users")]


@contextlib.asynccontextmanager
async def two_of(url: str) -> Any:
    """A member and a caller that has heard of it, by nothing but the watch."""
    settings = fast_settings(NAMESPACE, registry={"poll_seconds": 2.0})
    async with mesh_of(settings, url, "users") as users, mesh_of(settings, url) as caller:
        await users.membership.register()
        await until(lambda: ids(caller) == [users.instance.id])
        yield users, caller


async def everything_works(users: Mesh, caller: Mesh, wish: Callable[[], Any]) -> None:
    """Heartbeats, watch, polls, an operator's wish and an acknowledged drain."""
    await caller.membership.register()
    wished: list[str] = []
    users.membership.on_wish(wished.append)
    await asyncio.to_thread(wish)
    await until(lambda: wished == ["draining"])
    drained = await users.membership.drain(10)
    assert (drained.acknowledged, drained.waiting_for) == (True, ())
    assert not caller.directory.ready("users")
    users.membership.set_state("ready")
    await until(lambda: caller.directory.ready("users"))


def wish_of(url: str, users: Mesh) -> Callable[[], None]:
    def wish() -> None:
        settings = fast_settings(NAMESPACE).registry
        with contextlib.closing(BlockingRegistry(url)) as operator:
            operator.run(operations.wish(Keys(NAMESPACE), settings, "users", users.instance.id, "draining"))

    return wish


async def test_behind_sentinel_a_killed_primary_is_replaced_and_the_mesh_goes_on(tmp_path: Path) -> None:
    with redis_servers.watched_by_sentinel(tmp_path) as town:
        async with two_of(town.url) as (users, caller):
            await everything_works(users, caller, wish_of(town.url, users))
            town.primary.kill()
            await until(lambda: not caller.directory.healthy)
            assert ids(caller) == [users.instance.id]
            await until(lambda: caller.directory.healthy and not caller.directory.suspects)
            # A change, to show that beats are heard of again and not merely remembered.
            users.membership.set_state("draining")
            await until(lambda: ids(caller) == [users.instance.id] and not caller.directory.ready("users"))


async def test_behind_one_address_a_primary_that_was_demoted_is_left_for_the_new_one(tmp_path: Path) -> None:
    """As behind a name that is moved: the old connection works, and leads to a replica now, where nothing is written."""
    with redis_servers.node(tmp_path) as old, redis_servers.node(tmp_path) as new:
        async with (
            redis_line(f"redis://default:{URL_PASSWORD}@127.0.0.1:{old.port}/0") as line,
            two_of(line.url) as (
                users,
                caller,
            ),
        ):
            old.ask("REPLICAOF", "127.0.0.1", new.port)
            line.lead_to("127.0.0.1", new.port)
            users.membership.set_state("draining")
            await until(lambda: new.ask("HLEN", Keys(NAMESPACE).records("users")))
            await until(lambda: not caller.directory.ready("users"))
            assert ids(caller) == [users.instance.id]


async def nothing_stays_open(town: redis_servers.Cluster) -> None:
    """When a client is closed that has just lost the cluster in one command, and has another one's connection open."""

    def connections() -> int:
        return len(town.home.ask("CLIENT", "LIST").splitlines())

    before = connections()
    client: Any = redis_client.open_async(town.url, timeout_seconds=1)
    await Registry(client, Keys(NAMESPACE)).position()
    assert connections() > before
    client._initialize = True  # so redis-py leaves it after a failed command
    await client.aclose()
    await until(lambda: connections() == before)


async def test_on_a_cluster_everything_works_and_goes_on_after_a_failover(tmp_path: Path) -> None:
    with redis_servers.cluster(tmp_path, Keys(NAMESPACE).head) as town:
        await nothing_stays_open(town)
        async with two_of(town.url) as (users, caller):
            await everything_works(users, caller, wish_of(town.url, users))
            town.fail_over()
            users.membership.set_state("draining")
            await until(lambda: not caller.directory.ready("users"))
            assert ids(caller) == [users.instance.id]


async def test_over_tls_the_server_must_be_who_it_says(tmp_path: Path) -> None:
    own = redis_servers.certificate(tmp_path)
    with redis_servers.node(tmp_path / "redis") as server:
        async with redis_servers.behind_tls(server.port, own) as port:
            at = f"rediss://default:{URL_PASSWORD}@127.0.0.1:{port}"
            url = f"{at}?ssl_ca_certs={own.file}"
            async with two_of(url) as (users, caller):
                await everything_works(users, caller, wish_of(url, users))
            for wrong in (at, url.replace("127.0.0.1", "localhost")):
                client = redis_client.open_async(wrong, timeout_seconds=1)
                with pytest.raises(Unavailable):
                    await Registry(client, Keys(NAMESPACE)).position()
                await client.aclose()


async def test_a_user_who_may_touch_nothing_but_the_keys_of_the_mesh_is_enough(tmp_path: Path) -> None:
    with redis_servers.node(tmp_path) as server:
        server.ask(
            "ACL", "SETUSER", "town", "on", f">{PASSWORD}", f"~{{{NAMESPACE}}}:*", "+@all", "-@admin", "-@dangerous"
        )
        url = f"redis://town:{URL_PASSWORD}@127.0.0.1:{server.port}"
        async with two_of(url) as (users, caller):
            await everything_works(users, caller, wish_of(url, users))
        with (
            contextlib.closing(redis_client.open_blocking(url)) as client,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            client.get("another")
