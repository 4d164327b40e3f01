"""Rules that an operator sets at run time: how much of a service's traffic a version gets, and what an instance weighs.

A rule is whole and has a revision; the highest holds everywhere. Directories keep rules as they keep peers, and put
back one that Redis has lost. An empty rule says that there is none: it outlives the one that it cleared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import orjson
from pydantic import Field, TypeAdapter

from app.errors import InvalidInput
from app.mesh.registry.record import MAX_RECORD_BYTES, PoisonedRecord

_MOST_ENTRIES = 64
_ROUNDING = 1e-9

_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_Service = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]

_WORD = re.compile(r"(?P<name>[\x21-\x24\x26-\x3c\x3e-\x7e]{1,128})=(?P<amount>\d{1,4}(?:\.\d{1,9})?)?(?P<percent>%)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One service's rule, whole; the one with the highest revision holds everywhere.

    Args:
        revision: grows with every change of the service's rule.
        shares: (version, fraction of the traffic from 0 to 1); versions that are not named share the rest by weight.
        weights: (instance id, weight), in the place of what the instance says of itself.
    """

    service: _Service
    revision: Annotated[int, Field(ge=0, lt=2**53)]
    shares: Annotated[tuple[tuple[_Name, _Share], ...], Field(max_length=_MOST_ENTRIES)] = ()
    weights: Annotated[tuple[tuple[_Name, _Weight], ...], Field(max_length=_MOST_ENTRIES)] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing: no rule, or one that was cleared."""
        return not (self.shares or self.weights)


_rules = TypeAdapter(Rule)


def parse(words: Sequence[str], previous: Rule) -> Rule:
    """`previous` as an operator's words change it: ``v2=5%`` a version's share of the traffic, ``orders-ab12cd=0.5`` an
    instance's weight, ``v2=`` neither any more. What is not named stays.

    The revision stays that of `previous`: `operations.put_rule` compares it and sets the next one.

    Raises:
        InvalidInput: a word cannot be read or is out of its range, or the shares exceed 100 %.
    """
    if not words:
        raise InvalidInput("Say what to change, as in v2=5% (a version's share) or orders-ab12cd=0.5 (a weight)")
    shares, weights = dict(previous.shares), dict(previous.weights)
    for word in words:
        name, amount, percent = _read(word)
        if amount is None:
            shares.pop(name, None)
            weights.pop(name, None)
        elif percent:
            shares[name] = amount / 100
        else:
            weights[name] = amount
    return _checked(replace(previous, shares=tuple(sorted(shares.items())), weights=tuple(sorted(weights.items()))))


def describe(rule: Rule) -> str:
    """The rule as `parse` reads it: ``v2=5% orders-ab12cd=0.5``; empty for an empty one."""
    shares = [f"{version}={share * 100:.9g}%" for version, share in rule.shares]
    return " ".join(shares + [f"{instance_id}={weight:.9g}" for instance_id, weight in rule.weights])


def encode(rule: Rule) -> bytes:
    """What is stored behind the revision; see `decode`."""
    return orjson.dumps({"shares": rule.shares, "weights": rule.weights})


def decode(service: str, raw: bytes) -> Rule:
    """Read a stored rule, ``<revision> <JSON>``.

    Raises:
        PoisonedRecord: too long, malformed, or it breaks the schema.
    """
    revision, _, document = raw.partition(b" ")
    if not (0 < len(raw) <= MAX_RECORD_BYTES and revision.isdigit() and len(revision) < 17):
        raise PoisonedRecord("not a rule")
    try:
        stored = orjson.loads(document)
        rule = _rules.validate_python(
            {"service": service, "revision": int(revision), "shares": stored["shares"], "weights": stored["weights"]}
        )
        return _checked(rule)
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise PoisonedRecord(f"not a rule: {type(error).__name__}") from None


def _read(word: str) -> tuple[str, float | None, bool]:
    match = _WORD.fullmatch(word)
    if match is None or (match["amount"] is None and match["percent"]):
        raise InvalidInput(f"{word[:80]!r} is neither VERSION=PERCENT%, INSTANCE=WEIGHT nor NAME=")
    amount = None if match["amount"] is None else float(match["amount"])
    if amount is not None and match["percent"] and amount > 100:
        raise InvalidInput(f"{word[:80]}: a share is between 0% and 100%")
    if amount is not None and amount > 1000:
        raise InvalidInput(f"{word[:80]}: a weight is between 0 and 1000")
    return match["name"], amount, match["percent"] is not None


def _checked(rule: Rule) -> Rule:
    total = sum(share for _, share in rule.shares)
    if total > 1 + _ROUNDING:
        raise InvalidInput(f"The versions' shares of {rule.service} come to {total * 100:.9g}%: more than 100%")
    if max(len(rule.shares), len(rule.weights)) > _MOST_ENTRIES:
        raise InvalidInput(f"A rule names at most {_MOST_ENTRIES} versions and {_MOST_ENTRIES} instances")
    return rule
