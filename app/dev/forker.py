"""The process that forks the replicas of `mesh up`, after it has imported everything that they need.

    supervisor ── stdin: one order per line ──► forker ── fork ──► replica
               ◄── stdout: one piece of news per line ──┘

Importing Flask, SQLAlchemy, aiohttp and what else a service needs takes seconds of a core; done once, starting ten
replicas, or one again after a crash, takes a moment. It has one thread and no event loop, so forking it is safe.
Only libraries and the house's own rooms are imported before the fork; the service itself comes after it, so that a
restart shows what was edited.

It holds the listening sockets that its command line names by their descriptors, and hands them to the replicas that
are to serve them: a connection that comes while such a replica is replaced waits in the socket's queue.

A replica ends when its forker does, and the forker when its supervisor does (see `leash`).
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from app.dev import leash, replica
from app.dev.orders import News, Order

STDIN = 0


class Forker:
    """The loop of the forking process.

    Args:
        sockets: descriptors of listening sockets, for the children that inherit them.
    """

    def __init__(self, sockets: Sequence[int] = ()) -> None:
        self._sockets = tuple(sockets)
        # The pid of each living child, and its order's number.
        self._children: dict[int, int] = {}
        self._unread = b""
        # A signal writes a byte here, which wakes the loop up.
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Carry out orders until there is nobody left to give them."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._rope)
        self._selector.register(STDIN, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        # What lives now lives for ever: let the collector not touch (and so copy) its pages in every child.
        gc.collect()
        gc.freeze()
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for something and do it; False when standard input has ended."""
        ready = {key.fd for key, _ in self._selector.select()}
        if self._bell in ready:
            os.read(self._bell, 4096)
            self._reap()
        if STDIN not in ready:
            return True
        received = os.read(STDIN, 65536)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            self._obey(Order.model_validate_json(line))
        return bool(received)

    def _obey(self, order: Order) -> None:
        if order.kind == "signal":
            # Only to children that are not reaped yet: their pids cannot be anybody else's.
            for pid in [pid for pid, number in self._children.items() if number == order.number]:
                os.kill(pid, order.sign)
            return
        if order.kind == "let go":
            self._let_go()
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._live(order, parent)
        self._children[pid] = order.number
        _tell(News(kind="born", number=order.number, pid=pid))

    def _let_go(self) -> None:
        for descriptor in self._sockets:
            os.close(descriptor)
        self._sockets = ()

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._children.pop(pid)
            _tell(News(kind="ended", number=number, pid=pid, code=os.waitstatus_to_exitcode(status)))

    def _live(self, order: Order, parent: int) -> None:
        """The life of a child, from fork to exit; never returns into the loop of its parent."""
        code = 1
        try:
            self._leave_home(order, parent)
            replica.main()
            code = 0
        except SystemExit as error:
            code = _exit_code(error)
        except BaseException:  # noqa: BLE001  # nothing may leave the fork but its exit code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _leave_home(self, order: Order, parent: int) -> None:
        # Away from the terminal: its Ctrl-C is for the supervisor, which stops everybody in order.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Path(os.devnull).open("rb") as nothing, order.log.open("ab") as sink:
            os.dup2(nothing.fileno(), 0)
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        if not order.inherits:
            self._let_go()
        self._selector.close()
        os.close(self._bell)
        os.close(self._rope)
        leash.put_on(parent, signal.SIGTERM, str(order.pid_file))
        leash.name(order.name)
        os.environ.clear()
        os.environ.update(order.environment)


def _exit_code(error: SystemExit) -> int:
    """As the interpreter does it: None is 0, a text is said and is 1."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return 1


def _tell(news: News) -> None:
    os.write(1, news.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    Forker([int(word) for word in sys.argv[1:]]).run()
