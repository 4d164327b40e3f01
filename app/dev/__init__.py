"""`mesh up`: every service on this machine, each replica a process of its own, and a Redis if there is none.

    supervisor.py   the whole: public port, Redis, replicas, orders, an orderly stop
    premises.py     the data directory as one supervisor's own
    plan.py         who is to run (pure)
    fleet.py        all replicas: each with its port, files and environment; one replaced by another
    keeper.py       one replica kept running: start, restart with back-off, stop
    boot.py         replicas on their way up: until all are ready, or what to say of the one that is not
    rollout.py      a rolling restart
    control.py      orders to a running supervisor, over a Unix socket
    stop.py         told to stop, in order or at once
    nursery.py      where its processes come from: asks the forker
    orders.py       what the two say to each other
    forker.py       the process that has imported everything, and forks
    replica.py      what a forked process does: prepare the database, then serve
    readiness.py    when everything answers and is in the registry
    roster.py       the registry as an operator sees it
    traffic.py      who gets how much of it
    demo.py         what to paste into a shell once it runs
    state.py        what runs, in the data directory's state.json, for whoever asks
    events.py       what a supervisor tells whoever started it
    daemon.py       the same in the background
    redis.py        the embedded Redis
    secrets.py      the demo's passwords and secrets, in the data directory's secrets.json
    credentials.py  what a process is told of the issuer, and proves itself with there
    login.py        tokens as a client gets them: for itself, or for a user who logs in
    browser.py      as much of a browser as that needs
    leash.py        a child ends when its parent does, however that ends
    lock.py         one supervisor per data directory
    ports.py        which are free, and how an address is written

In the data directory: state.json, mesh.lock, control.sock, run/ (pid files) while it runs; logs/, redis/redis.log, the
SQLite files, secrets.json and cache/ for good. A replica's log is that of its present process; the one before it left `.old.log`.
"""
