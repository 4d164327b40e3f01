"""`mesh up`: every service on this machine, each replica a process of its own, and a Redis if there is none.

    supervisor.py   the whole: Redis, replicas, readiness, an orderly stop
    plan.py         who is to run (pure)
    keeper.py       one replica kept running: start, restart with back-off, stop
    nursery.py      where its processes come from: asks the forker
    orders.py       what the two say to each other
    forker.py       the process that has imported everything, and forks
    replica.py      what a forked process does: prepare the database, then serve
    readiness.py    when everything answers and is in the registry
    roster.py       who is in the registry
    demo.py         what to paste into a shell once it runs
    state.py        what runs, in the data directory's state.json, for whoever asks
    events.py       what a supervisor tells whoever started it
    daemon.py       the same in the background
    redis.py        the embedded Redis
    leash.py        a child ends when its parent does, however that ends
    lock.py         one supervisor per data directory
    ports.py        which are free, and how an address is written

In the data directory: state.json, mesh.lock, run/ (pid files) while it runs; logs/, redis/redis.log, the SQLite files
and cache/ for good.
"""
