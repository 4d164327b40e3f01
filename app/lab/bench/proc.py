"""What the kernel knows of a process and of the cores (Linux): CPU time, memory, which cores there are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.errors import Misconfigured

_PROC = Path("/proc")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = slice(3, 5)  # idle and iowait, of a line of /proc/stat split at blanks (after the first field)


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the measured process on `server` alone, everything else of the bench on `load`."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        return self.server == self.load


def cores() -> Cores:
    """The first and the last core that we may use; interrupts prefer the first, so the server has the last.

    Raises:
        Misconfigured: this system has no /proc, or can't bind a process to a core.
    """
    if not hasattr(os, "sched_setaffinity") or not (_PROC / "self" / "smaps_rollup").exists():
        raise Misconfigured("The bench needs Linux: it binds processes to cores and reads /proc")
    ours = sorted(os.sched_getaffinity(0))
    return Cores(server=ours[-1], load=ours[0])


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of `pid` and its living descendants, with the threads that have ended; ± one tick."""
    return sum(_own_cpu_seconds(member) for member in _family(pid))


def rss_bytes(pid: int) -> int:
    """Memory that is resident now, of `pid` alone; exact, where VmRSS lags behind on many threads."""
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


def busy_seconds(core: int) -> float:
    """For how long `core` has not been idle since the machine started."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            # Guest time stands in user time already; the fields after the eighth would count it twice.
            spent = [int(tick) for tick in ticks[:8]]
            return (sum(spent) - sum(spent[_IDLE_FIELDS])) * _TICK_SECONDS
    return 0.0


def _own_cpu_seconds(pid: int) -> float:
    # After the name, which stands in brackets and may hold anything: state is field 3, utime 14, stime 15.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_SECONDS


def _family(pid: int) -> list[int]:
    # Those that its main thread has started; servers that fork do it there.
    children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]
