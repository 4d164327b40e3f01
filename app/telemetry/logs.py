"""Logs: one line per event on stderr, JSON unless a person is watching; the only module that knows structlog.

The standard library's loggers flow into the same lines.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from app import context
from app.settings import Settings
from app.telemetry.redaction import redact, redact_member, redact_text

_Event = MutableMapping[str, Any]

_LEVEL_NAMES = {
    "warn": "warning",
    "exception": "error",
    "msg": "info",
    "fatal": "critical",
}

# Frames without local variables: those hold the secrets that redaction cannot name.
_structured_exceptions = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
)


class _Stderr:
    """Today's `sys.stderr` as a sink of whole lines; a log that cannot be written never fails who logs."""

    def write_line(self, line: bytes | str) -> None:
        data = line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            # One write of one whole line: lines of several threads do not mix.
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
        except (OSError, ValueError, AttributeError):
            pass

    msg = debug = info = warning = error = critical = write_line


class _Envelope:
    """Puts the members that every line has first, then the event's own, redacted."""

    def __init__(self, service: str, instance: str) -> None:
        self._fixed = {"service": service, "instance": instance}

    def __call__(self, logger: Any, method: str, event: _Event) -> _Event:
        line = {
            "timestamp": datetime.now(UTC),
            "level": _LEVEL_NAMES.get(method, method),
            "event": redact(event.pop("event", "")),
            "logger": event.pop("logger", ""),
            **self._fixed,
        }
        current = context.current()
        if current is not None:
            line["request_id"] = current.request_id
        for key, value in event.items():
            line[key] = redact_member(key, value, 0)
        return line


def _to_json(logger: Any, method: str, event: _Event) -> bytes:
    try:
        return orjson.dumps(
            event,
            default=_printable,
            option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE,
        )
    except TypeError:
        # What orjson refuses (integers over 64 bits, lone surrogates, keys that are not texts) still gets a line.
        return json.dumps(event, default=_printable, skipkeys=True).encode() + b"\n"


def _printable(value: object) -> str:
    try:
        return value.isoformat() if isinstance(value, datetime) else redact_text(repr(value))
    except Exception as error:  # noqa: BLE001  # a foreign __repr__ may do anything, and a log line must not fail
        return f"<{type(value).__name__}: unprintable, {type(error).__name__}>"


def _iso_timestamp(logger: Any, method: str, event: _Event) -> _Event:
    event["timestamp"] = event["timestamp"].isoformat(timespec="milliseconds")
    return event


def _processors(*, service: str, instance: str, console: bool) -> list[structlog.typing.Processor]:
    envelope = _Envelope(service, instance)
    if not console:
        return [_structured_exceptions, envelope, _to_json]
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
    )
    return [structlog.processors.format_exc_info, envelope, _iso_timestamp, renderer]


class _Room:
    """The logger of one room: bound on first use after `configure`, then plain attribute look-ups."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        bound = getattr(structlog.get_logger().bind(logger=self._name), method)
        self.__dict__[method] = bound
        return bound

    def rebind(self) -> None:
        for method in [name for name in self.__dict__ if name != "_name"]:
            del self.__dict__[method]


_rooms: dict[str, _Room] = {}


def log(room: str) -> FilteringBoundLogger:
    """The logger of `room`; safe at import time: it takes effect with `configure`, before that it writes warnings."""
    return cast("FilteringBoundLogger", _rooms.setdefault(room, _Room(room)))


class _Foreign(logging.Handler):
    """Brings the standard library's records (hypercorn, asyncio, aiohttp) into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Levels in between, as 25, count as the named one below them.
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            log(record.name).log(level, record.getMessage(), **_foreign_exception(record))
        except Exception:  # noqa: BLE001  # the contract of a logging handler: never raise into the one who logs
            self.handleError(record)


def _foreign_exception(record: logging.LogRecord) -> dict[str, Any]:
    return {"exc_info": record.exc_info} if record.exc_info and record.exc_info[0] is not None else {}


def _configure(level: int, processors: list[structlog.typing.Processor]) -> None:
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=False,  # rooms keep their bound methods themselves, and can let go of them
    )
    for room in list(_rooms.values()):
        room.rebind()


_configure(logging.WARNING, _processors(service="", instance="", console=False))


def configure(settings: Settings, *, service: str, instance: str) -> None:
    """From here on, one line per event on stderr: JSON, or readable where `settings.log_format` or a terminal asks.

    Args:
        service, instance: stand on every line.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    _configure(
        level,
        _processors(
            service=service,
            instance=instance,
            console=_wants_console(settings.log_format),
        ),
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Foreign)] + [_Foreign()]
    root.setLevel(level)
    logging.captureWarnings(True)


def _wants_console(log_format: Literal["auto", "json", "console"]) -> bool:
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
