"""Passwords: argon2id (RFC 9106), on threads of their own, so many at a time.

One verification takes 64 MiB and some 50 ms of several cores. Bounded in number, so that who guesses can exhaust neither
the memory nor the threads that others need; those who come later wait.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from argon2 import Parameters, PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type
from argon2.profiles import RFC_9106_LOW_MEMORY

T = TypeVar("T")

STRONG = RFC_9106_LOW_MEMORY
# For tests alone: what they hash protects nothing.
CHEAP = Parameters(
    type=Type.ID, version=19, salt_len=16, hash_len=32, time_cost=1, memory_cost=64, parallelism=1
)  # fmt: skip

MOST_AT_ONCE = 4
_threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="argon2")


async def hash_password(text: str, parameters: Parameters = STRONG) -> str:
    """The hash of a password, with its salt and parameters in it."""
    return await _in_thread(partial(_hasher(parameters).hash, _normal(text)))


async def verify(text: str, hashed: str) -> bool:
    """Whether `text` is the password that `hashed` was made of; a hash that is none belongs to no password."""
    return await _in_thread(partial(_verify, _normal(text), hashed))


def needs_rehash(hashed: str, parameters: Parameters = STRONG) -> bool:
    """Whether it was made with other parameters than these."""
    try:
        return _hasher(parameters).check_needs_rehash(hashed)
    except InvalidHashError:
        return True


def decoy(parameters: Parameters = STRONG) -> str:
    """A well-formed hash that no password has: verifying it takes as long as any other."""
    salt, digest = "A" * 22, "A" * 43
    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${costs}${salt}${digest}"


class Argon2:
    """The functions above with one set of parameters."""

    def __init__(self, parameters: Parameters = STRONG) -> None:
        self._parameters = parameters
        self.decoy = decoy(parameters)

    def __repr__(self) -> str:
        return f"<Argon2 {self._parameters.memory_cost} KiB, {self._parameters.time_cost} passes>"

    async def hash(self, text: str) -> str:
        return await hash_password(text, self._parameters)

    async def verify(self, text: str, hashed: str) -> bool:
        return await verify(text, hashed)

    def needs_rehash(self, hashed: str) -> bool:
        return needs_rehash(hashed, self._parameters)


def _hasher(parameters: Parameters) -> PasswordHasher:
    return PasswordHasher.from_parameters(parameters)


def _verify(text: bytes, hashed: str) -> bool:
    try:
        return PasswordHasher().verify(hashed, text)
    except (VerificationError, InvalidHashError):
        return False


def _normal(text: str) -> bytes:
    # Keyboards differ in how they compose an é (RFC 8265, 4.2).
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
