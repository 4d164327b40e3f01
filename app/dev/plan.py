"""Who is to run: how many replicas of each service. It decides and touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.errors import InvalidInput
from app.service import GATEWAY

MOST_REPLICAS = 100


@dataclass(frozen=True, slots=True)
class Replica:
    """One process to be: the `number`-th (from 1) of its service."""

    service: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def is_gateway(self) -> bool:
        """Whether it serves the public port, which all gateways share, besides its own."""
        return self.service == GATEWAY


def replicas(services: Sequence[str], counts: Mapping[str, int]) -> tuple[Replica, ...]:
    """All replicas; one of each service unless `counts` says otherwise."""
    return tuple(Replica(name, number) for name in services for number in range(1, counts.get(name, 1) + 1))


def parse_counts(words: Sequence[str], services: Sequence[str]) -> dict[str, int]:
    """Read ``["users=3", "orders=2,inventory=2"]``; the last word on a service counts.

    Raises:
        InvalidInput: not of that form, no such service, or not 1 to 100.
    """
    pairs = [pair.strip() for word in words for pair in word.split(",")]
    return dict(_parse_count(pair, services) for pair in pairs)


def _parse_count(pair: str, services: Sequence[str]) -> tuple[str, int]:
    name, separator, digits = pair.partition("=")
    if not separator:
        raise InvalidInput(f"--replicas {pair!r}: write it as users=3")
    if name not in services:
        raise InvalidInput(f"--replicas: no service {name!r}; there are: {', '.join(services)}")
    # Digits only: int() would also take " 3", "+3" and "1_0".
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= MOST_REPLICAS):
        raise InvalidInput(f"--replicas {name}: a number from 1 to {MOST_REPLICAS}, not {digits!r}")
    return name, int(digits)
