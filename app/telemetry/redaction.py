"""What must not stand in a log: found by the names of keys, and by what stands in texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

REDACTED = "***"

_SECRET_KEY = re.compile(
    r"authorization|cookie|passw|pwd|secret|token|api[-_]?key|credential|private[-_]?key",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]+@")
_SECRET_PARAMETER = re.compile(r"((?:password|token|secret|api[-_]?key)=)[^&\s\"']+", re.IGNORECASE)
_BEARER = re.compile(r"(\b(?:bearer|basic) )[\w.~+/=-]{6,}", re.IGNORECASE)
_MAX_DEPTH = 8


@lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def redact(value: Any, *, depth: int = 0) -> Any:
    """`value` without secrets: by the names of its keys, and by what stands in its texts (passwords in URLs)."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "backslashreplace"))
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {key: redact_member(str(key), item, depth + 1) for key, item in value.items()}
    return [redact(item, depth=depth + 1) for item in value]


def redact_member(key: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool) or not _is_secret(key):
        return redact(value, depth=depth)
    return REDACTED


def redact_text(text: str) -> str:
    if "@" in text:
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
    if "=" in text:
        text = _SECRET_PARAMETER.sub(rf"\1{REDACTED}", text)
    if " " in text:
        text = _BEARER.sub(rf"\1{REDACTED}", text)
    return text
