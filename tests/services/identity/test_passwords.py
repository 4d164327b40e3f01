from __future__ import annotations

import asyncio
import threading
import time

import pytest
from argon2 import extract_parameters

from app.services.identity import passwords
from app.services.identity.passwords import CHEAP, STRONG, Argon2


async def test_a_password_fits_its_own_hash_alone() -> None:
    hashed = await passwords.hash_password("right", CHEAP)
    assert await passwords.verify("right", hashed)
    assert not await passwords.verify("wrong", hashed)
    assert not await passwords.verify("", hashed)
    assert await passwords.hash_password("right", CHEAP) != hashed


async def test_unless_told_otherwise_it_is_argon2id_with_the_parameters_of_the_rfc() -> None:
    hashed = await passwords.hash_password("right")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert len(hashed) <= 255
    assert not passwords.needs_rehash(hashed)
    assert passwords.needs_rehash(hashed, CHEAP)
    assert passwords.needs_rehash(await passwords.hash_password("right", CHEAP))


@pytest.mark.parametrize("hashed", ["", "right", "$argon2id$", "$2b$12$" + "a" * 53])
async def test_what_is_no_hash_fits_no_password(hashed: str) -> None:
    assert not await passwords.verify("right", hashed)
    assert passwords.needs_rehash(hashed)


async def test_the_decoy_costs_what_a_real_hash_costs_and_fits_nothing() -> None:
    for parameters in (CHEAP, STRONG):
        decoy = passwords.decoy(parameters)
        assert extract_parameters(decoy) == parameters
        assert not await passwords.verify("", decoy)
        assert Argon2(parameters).decoy == decoy


async def test_a_letter_may_be_composed_in_two_ways() -> None:
    hashed = await passwords.hash_password("caf\u00e9", CHEAP)
    assert await passwords.verify("cafe\u0301", hashed)


async def test_lone_surrogates_and_nul_are_letters_like_others() -> None:
    hashed = await passwords.hash_password("a\0b\ud800", CHEAP)
    assert await passwords.verify("a\0b\ud800", hashed)
    assert not await passwords.verify("a\0b", hashed)


async def test_so_many_are_verified_at_once_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, gate, lock = 0, 0, threading.Event(), threading.Lock()

    def slow(text: bytes, hashed: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(10)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(passwords, "_verify", slow)
    tasks = [asyncio.create_task(passwords.verify("x", "y")) for _ in range(3 * passwords.MOST_AT_ONCE)]
    give_up = time.monotonic() + 10
    while running < passwords.MOST_AT_ONCE and time.monotonic() < give_up:
        await asyncio.sleep(0)
    gate.set()
    assert all(await asyncio.gather(*tasks))
    assert most == passwords.MOST_AT_ONCE
