"""What processes do together: one at a time, one for all, so many per second.

line            commands to a Redis that may be away
lease           at most one holder, a fencing token, renewed in the background
lock            a block that only one process runs
leader          a periodic job that only one process runs
rate            so many per second in the whole fleet
watch           hears what the others say, from a log in Redis, and knows when it has missed something
board           short notices of which every process has a copy
coordination    the door to locks, jobs and limits
scripts/        the atomic steps, in Lua
"""

from app.mesh.coordination.board import Board, open_board
from app.mesh.coordination.coordination import Coordination
from app.mesh.coordination.leader import PeriodicJob
from app.mesh.coordination.lease import Held, Lease
from app.mesh.coordination.line import Line, open_line
from app.mesh.coordination.lock import mesh_lock
from app.mesh.coordination.rate import Limiter, Rate, Verdict

__all__ = [
    "Board",
    "Coordination",
    "Held",
    "Lease",
    "Limiter",
    "Line",
    "PeriodicJob",
    "Rate",
    "Verdict",
    "mesh_lock",
    "open_board",
    "open_line",
]
