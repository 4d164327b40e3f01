"""The demo's secrets: made on the first start, kept in ``secrets.json``, which is its owner's alone. Never in production.

none there ─► made, whole or not at all ─┐
there      ─► what is missing is added ──┴─► the same for everybody, from then on
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import Misconfigured

ACCOUNTS = ("admin", "user7", "user8")
DEMO_CLIENT = "demo-client"
_OTHERS = 0o077


class Secrets(BaseModel):
    """What the demo's accounts and clients prove themselves with.

    Args:
        key_secret: encrypts identity's signing keys.
        accounts: user name → password.
        clients: client id → secret: each service, and ``demo-client``.
    """

    model_config = ConfigDict(frozen=True)

    key_secret: str = Field(repr=False)
    accounts: Mapping[str, str] = Field(repr=False)
    clients: Mapping[str, str] = Field(repr=False)


def ensure(path: Path, services: Iterable[str]) -> Secrets:
    """The secrets at `path`: made if there are none, and completed if a service has none yet. Of two who come at once,
    one makes them.

    Raises:
        Misconfigured: as `read`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(path.parent):
        known = read(path)
        complete = _completed(known, services)
        if complete != known:
            _write(path, complete)
    return complete


def read(path: Path) -> Secrets | None:
    """The secrets at `path`; None if there are none.

    Raises:
        Misconfigured: others than its owner can read it, or it makes no sense.
    """
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise Misconfigured(
                    f"{path} is open to others than its owner: `chmod 600` it, or remove it for new ones"
                )
            return Secrets.model_validate_json(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError):
        # Not even as a cause: the error quotes what it has read.
        raise Misconfigured(f"{path} does not hold the demo's secrets; remove it, and new ones are made") from None


def replace_client(path: Path, client_id: str, secret: str) -> bool:
    """Give a client of the demo another secret. False if it is none of the demo's."""
    if not path.exists():
        return False
    with _one_at_a_time(path.parent):
        known = read(path)
        if known is None or client_id not in known.clients:
            return False
        _write(path, known.model_copy(update={"clients": {**known.clients, client_id: secret}}))
        return True


def _completed(known: Secrets | None, services: Iterable[str]) -> Secrets:
    accounts = {} if known is None else known.accounts
    clients = {} if known is None else known.clients
    return Secrets(
        key_secret=_new() if known is None else known.key_secret,
        accounts={**{name: _new() for name in ACCOUNTS if name not in accounts}, **accounts},
        clients={**{name: _new() for name in (*services, DEMO_CLIENT) if name not in clients}, **clients},
    )


def _new() -> str:
    return secrets.token_urlsafe(32)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    # The folder itself is locked, so that no lock file is left; the kernel lets go of it if we are killed.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, known: Secrets) -> None:
    """In one step: a reader sees the old or the new one, never a half, and nobody else ever sees it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    # We hold the lock: one of this name was left by a process that was killed.
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(known.model_dump_json(indent=2))
        file.flush()
        os.fsync(descriptor)
    scratch.replace(path)
