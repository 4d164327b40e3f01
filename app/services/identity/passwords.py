"""Passwords: argon2id (RFC 9106), on threads of their own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_threads = ThreadPoolExecutor(4, thread_name_prefix="argon2")


async def hash_password(text: str) -> str:
    """The hash of a password, with its salt and parameters in it."""
    return await asyncio.get_running_loop().run_in_executor(_threads, PasswordHasher().hash, text)


async def verify(text: str, hashed: str) -> bool:
    """Whether `text` is the password that `hashed` was made of."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, text, hashed)


def _verify(text: str, hashed: str) -> bool:
    try:
        return PasswordHasher().verify(hashed, text)
    except (VerificationError, InvalidHashError):
        return False
