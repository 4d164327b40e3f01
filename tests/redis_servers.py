"""Redis in every formation: primaries and replicas under a sentinel, a cluster, one behind TLS; real processes all.

TLS is spoken by a small proxy in front of the server: neither every distribution's Redis nor the wheel's speaks it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.crc import key_slot

from app.dev import leash, ports
from app.dev import redis as embedded_redis

PASSWORD = "s3cret-p@ss/word"
URL_PASSWORD = "s3cret-p%40ss%2Fword"
PATIENCE_SECONDS = 20.0
# The bus of a cluster's node listens ten thousand higher.
_BUS = 10_000


@dataclass
class Node:
    """One running server."""

    port: int
    process: subprocess.Popen[bytes]

    def ask(self, *command: Any) -> Any:
        with closing(redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """As a power cut."""
        self.process.kill()
        self.process.wait()


def wait_until(condition: Callable[[], object]) -> None:
    """For what other processes settle among themselves."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def node(folder: Path, *lines: str, sentinel: bool = False) -> Iterator[Node]:
    """A server with these lines of configuration besides the usual ones."""
    port = next(port for port in iter(ports.any_free, 0) if port + _BUS <= ports.LAST)
    folder = folder / str(port)
    folder.mkdir(parents=True)
    usual = ("bind 127.0.0.1", f"port {port}", f"requirepass {PASSWORD}", f"dir {folder}")
    kept = () if sentinel else (f"masterauth {PASSWORD}", 'save ""', "appendonly no", "repl-diskless-sync-delay 0")
    configuration = folder / "redis.conf"
    configuration.write_text("\n".join((*usual, *kept, *lines)) + "\n")
    command: list[Path | str] = [embedded_redis.locate(), configuration, *(["--sentinel"] if sentinel else [])]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            leash.command(command, pid_file=folder / "pid"), stdout=log, stderr=log, start_new_session=True
        )
    started = Node(port, process)
    try:
        wait_until(lambda: started.ask("PING"))
        yield started
    finally:
        started.kill()


@dataclass
class Watched:
    """A primary, its replica, and the sentinel that watches them."""

    url: str
    primary: Node
    replica: Node
    sentinel: Node


@contextmanager
def watched_by_sentinel(folder: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        primary = stack.enter_context(node(folder))
        replica = stack.enter_context(node(folder, f"replicaof 127.0.0.1 {primary.port}"))
        wait_until(lambda: "master_link_status:up" in _text(replica.ask("INFO", "replication")))
        sentinel = stack.enter_context(
            node(
                folder,
                f"sentinel monitor town 127.0.0.1 {primary.port} 1",
                f"sentinel auth-pass town {PASSWORD}",
                "sentinel down-after-milliseconds town 300",
                "sentinel failover-timeout town 2000",
                sentinel=True,
            )
        )
        wait_until(lambda: sentinel.ask("SENTINEL", "REPLICAS", "town"))
        url = (
            f"redis+sentinel://default:{URL_PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel.port}/0"
            f"?service=town&sentinel_password={URL_PASSWORD}"
        )
        yield Watched(url, primary, replica, sentinel)


@dataclass
class Cluster:
    """Two primaries; `home` serves the keys that were asked about, and has a replica."""

    url: str
    home: Node
    other: Node
    replica: Node

    def fail_over(self) -> None:
        """The home is cut off, and its replica takes its place."""
        self.home.kill()
        self.replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")


@contextmanager
def cluster(folder: Path, key: str) -> Iterator[Cluster]:
    lines = ("cluster-enabled yes", "cluster-node-timeout 1000")
    with ExitStack() as stack:
        home, other, replica = nodes = [stack.enter_context(node(folder, *lines)) for _ in range(3)]
        halves = [range(8192), range(8192, 16384)]
        owned, left = sorted(halves, key=lambda half: key_slot(key.encode()) not in half)
        home.ask("CLUSTER", "ADDSLOTS", *owned)
        other.ask("CLUSTER", "ADDSLOTS", *left)
        for epoch, one in enumerate(nodes, 1):
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            one.ask("CLUSTER", "MEET", "127.0.0.1", home.port)
        wait_until(lambda: all("cluster_known_nodes:3" in _text(one.ask("CLUSTER", "INFO")) for one in nodes))
        replica.ask("CLUSTER", "REPLICATE", home.ask("CLUSTER", "MYID"))
        wait_until(lambda: "master_link_status:up" in _text(replica.ask("INFO", "replication")))
        wait_until(lambda: all("cluster_state:ok" in _text(one.ask("CLUSTER", "INFO")) for one in nodes))
        addresses = ",".join(f"127.0.0.1:{port}" for port in (1, other.port, home.port))
        yield Cluster(f"redis+cluster://default:{URL_PASSWORD}@{addresses}", home, other, replica)


def _text(answer: Any) -> str:
    # INFO's answer is read into a dictionary by the client, CLUSTER INFO's as well.
    return " ".join(f"{name}:{value}" for name, value in answer.items()) if isinstance(answer, dict) else str(answer)


# ------------------------------------------------------------------------------------------- TLS


@dataclass
class Certificate:
    """A certificate of 127.0.0.1's own, which is also its authority."""

    file: Path
    key: Path


def certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "town")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@asynccontextmanager
async def behind_tls(port: int, own: Certificate) -> AsyncIterator[int]:
    """A port where TLS is spoken, and carried to `port` in plain."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.file, own.key)
    carriers: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carriers.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for one in (writer, far_writer):
            one.transport.abort()

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in carriers:
            task.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
