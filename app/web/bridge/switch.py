"""Synchronous code that awaits: a greenlet on the event loop, and a line back from a worker thread.

    task (driver)                       greenlet (synchronous code)
    ─────────────                       ───────────────────────────
    frame.switch(args) ───────────────► function(*args)
                                          await_(coro): coro.send(None)
      yield future     ◄───────────────     … yields a future
    (the loop runs other tasks)
      frame.switch(result) ────────────►    coro.send(result) … returns 42
                                          await_ returns 42
      return value     ◄───────────────  return value

The coroutine is stepped *inside* the greenlet, and only what it yields travels to the task. So a coroutine that
never has to wait costs no switch, and synchronous code that an async view calls may use `await_` as well.

The greenlet has the task's own ``contextvars.Context``, not a copy: what one sets, the other sees. The idea of
running synchronous code in a greenlet that its task drives is SQLAlchemy's (``sqlalchemy.util.concurrency``).
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Executor, Future
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class NoBridge(RuntimeError):
    """`await_` was called where no request is being served through the bridge."""


class _LoopFrame(greenlet):
    """Synchronous code on the event loop's thread."""

    def wait(self, awaitable: Awaitable[T]) -> T:
        stepper = awaitable if isinstance(awaitable, types.CoroutineType) else awaitable.__await__()
        to_driver = cast(greenlet, self.parent).switch
        try:
            yielded = stepper.send(None)
            while True:
                try:
                    sent = to_driver(yielded)
                except BaseException as error:
                    yielded = stepper.throw(error)
                else:
                    yielded = stepper.send(sent)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a generator's return value is untyped

    def run(self, function: Callable[[], Any]) -> Any:
        """The frame's life: one call after the other, each answered to the driver that asked for it."""
        while True:
            try:
                outcome = _Outcome(function(), None)
            except BaseException as error:  # the driver raises it in the task
                outcome = _Outcome(None, error)
            function = cast(greenlet, self.parent).switch(outcome)


class _Outcome:
    """How a call in a frame ended."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error


class _IdleFrames(threading.local):
    """The frames of one thread that have nothing to do.

    Since CPython 3.11 a new greenlet's first Python call maps memory for its frames and its end unmaps it again,
    which costs more than all the rest of a switch: so frames are kept and used again.
    """

    def __init__(self) -> None:
        self.frames: list[_LoopFrame] = []

    def take(self) -> _LoopFrame:
        if not self.frames:
            return _LoopFrame()
        frame = self.frames.pop()
        frame.parent = getcurrent()
        return frame

    def give_back(self, frame: _LoopFrame) -> None:
        frame.gr_context = None
        if len(self.frames) < MOST_IDLE_FRAMES:
            self.frames.append(frame)
        else:
            frame.throw()


MOST_IDLE_FRAMES = 128
_idle = _IdleFrames()


class _ThreadFrame(greenlet):
    """Synchronous code on a worker thread, on behalf of a task."""

    hop: _Hop

    def wait(self, awaitable: Awaitable[T]) -> T:
        return self.hop.ask(awaitable)


def current_frame() -> _LoopFrame | _ThreadFrame | None:
    """The frame in which the caller may wait, or None outside the bridge."""
    frame = getcurrent()
    return frame if isinstance(frame, (_LoopFrame, _ThreadFrame)) else None


def await_(awaitable: Awaitable[T]) -> T:
    """Await from synchronous code that runs inside a request: a plain view, a hook, an Authlib grant.

    Args:
        awaitable: anything that ``await`` takes.

    Returns:
        What it returns; its exceptions are raised here.

    Raises:
        NoBridge: outside a request that the bridge serves.
    """
    frame = current_frame()
    if frame is None:
        if isinstance(awaitable, types.CoroutineType):
            awaitable.close()  # or Python warns of a coroutine that was never awaited
        raise NoBridge("await_() needs a request that is served through ASGIBridge")
    return frame.wait(awaitable)


@types.coroutine
def drive(function: Callable[..., T], *args: Any) -> Generator[Any, Any, T]:
    """Run `function` in a greenlet of this task, in this task's context; it may use `await_`.

    Usage: ``value = await drive(function, *args)``. Cancelling the task raises ``CancelledError`` inside `function`,
    at the point where it waits.
    """
    frame = _idle.take()
    frame.gr_context = getcurrent().gr_context
    yielded = frame.switch(partial(function, *args) if args else function)
    while type(yielded) is not _Outcome:
        try:
            sent = yield yielded
        except BaseException as error:
            yielded = frame.throw(error)
        else:
            yielded = frame.switch(sent)
    _idle.give_back(frame)
    if yielded.error is not None:
        raise yielded.error
    return yielded.value  # type: ignore[no-any-return]  # greenlet's switch is untyped


async def in_thread(executor: Executor, function: Callable[..., T], *args: Any) -> T:
    """Run blocking `function` on a thread of `executor`, in this task's context; it may use `await_`.

    The thread's greenlet has this task's very ``Context``, so that a token set here can be reset there, as
    ``flask.stream_with_context`` does. A thread can't be interrupted: cancelling this call first makes the
    function's pending and future `await_` raise, then waits until the function has ended, so that nothing it uses
    is torn down under it.
    """
    return await _Hop().run(executor, partial(function, *args))


class _Ask:
    """An awaitable that a worker thread wants awaited, and where the outcome goes."""

    __slots__ = ("awaitable", "reply")

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable
        self.reply: Future[Any] = Future()


class _Hop:
    """One function on a worker thread, and the line back to the task that waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._mail: deque[_Ask | Callable[[], Any]] = deque()
        self._bell: asyncio.Future[None] | None = None
        self._cancelled: asyncio.CancelledError | None = None

    # On the loop

    async def run(self, executor: Executor, function: Callable[[], T]) -> T:
        work = executor.submit(self._work, function, getcurrent().gr_context)
        while True:
            try:
                letter = await self._next_letter()
            except asyncio.CancelledError as error:
                if work.cancel():
                    raise
                self._cancelled = error
                continue
            if isinstance(letter, _Ask):
                await self._answer(letter)
                continue
            if self._cancelled is not None:
                raise self._cancelled
            return letter()  # type: ignore[no-any-return]  # the letter carries the function's own result

    async def _next_letter(self) -> _Ask | Callable[[], Any]:
        while not self._mail:
            self._bell = self._loop.create_future()
            try:
                await self._bell
            finally:
                self._bell = None
        return self._mail.popleft()

    async def _answer(self, ask: _Ask) -> None:
        try:
            if self._cancelled is not None:
                if isinstance(ask.awaitable, types.CoroutineType):
                    ask.awaitable.close()
                raise asyncio.CancelledError
            ask.reply.set_result(await ask.awaitable)
        except BaseException as error:  # the thread must hear of it, whatever it is
            if isinstance(error, asyncio.CancelledError):
                self._cancelled = error
            ask.reply.set_exception(error)

    def _deliver(self, letter: _Ask | Callable[[], Any]) -> None:
        self._mail.append(letter)
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    # On the worker thread

    def _work(self, function: Callable[[], Any], context: Context | None) -> None:
        frame = _ThreadFrame(function)
        frame.hop = self
        frame.gr_context = context
        try:
            letter: Callable[[], Any] = partial(_give, frame.switch())
        except BaseException as error:  # carried to the task, which raises it
            letter = partial(_raise, error)
        self._loop.call_soon_threadsafe(self._deliver, letter)

    def ask(self, awaitable: Awaitable[T]) -> T:
        letter = _Ask(awaitable)
        self._loop.call_soon_threadsafe(self._deliver, letter)
        return letter.reply.result()  # type: ignore[no-any-return]  # one future serves every type


def _give(value: T) -> T:
    return value


def _raise(error: BaseException) -> None:
    raise error
