"""Runs inside the child: ``python -m app.lab.bench.serve APP SERVER --fd N --core N``: one application, one server.

The core is chosen before anything else is imported, so that no thread of a library starts elsewhere.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import signal

PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.lab.bench.serve")
    parser.add_argument("app", help="a module of app.lab.bench.subjects")
    parser.add_argument("server", help="a module of app.lab.bench.servers")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket, inherited")
    parser.add_argument("--core", type=int, required=True)
    options = parser.parse_args()
    bind(options.core)
    server = importlib.import_module(f"app.lab.bench.servers.{options.server}")
    server.serve(f"app.lab.bench.subjects.{options.app}", options.fd)


def bind(core: int) -> None:
    """Run on `core` alone, and end when the bench ends, even if it is killed (Linux; both outlive ``exec``)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    os.sched_setaffinity(0, {core})


if __name__ == "__main__":
    main()
