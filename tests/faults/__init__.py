"""The failure suite: whole systems, real processes and a real Redis break under steady load, and the losses are counted.

``./scripts/test tests/faults`` runs the short form, which continuous integration runs, too: outages of seconds, leases
that are shortened to match. ``./scripts/test tests/faults --long`` runs the long form: outages of up to a minute, and
the settings as they are delivered.

What is asserted are counts: so many requests were sent, so many failed, so many were slow. The machine may be slow at
any moment, so no test looks at a single request's time; where one compares two spans of one run, it says what it does
when the first of them was disturbed already.

test_restarts       rolling restarts, with nothing lost
test_replicas       a replica is killed, stands still, or answers ten times slower
test_line           replicas behind lines that reset, stall, and are cut
test_redis          Redis stops, forgets, hangs, falls back into the past; a process starts without it
test_events         whoever takes, sends and handles orders is killed every second
test_postgres       the database of a service ends every connection, stops, and comes back
test_storm          a service that always fails
test_overload       a service that is asked for three times what it can do
test_cancelled      one call in ten is given up by its caller
test_registry       clocks that jump, records that lie

world       a system as `mesh up` starts it, in a project of its own, on a Redis that the test may break
redis       that Redis: stopped, hung, emptied, followed
toy         the service that the tests add: slow, failing, limited, as it is told at run time
traffic     the load: a process of its own that writes down what came of each request
shoppers    clients that ask until they are answered
ledger      what the databases say of orders and stock when all is over
kinds       what is asked for, and how each request knows its own answer
journal     what it wrote, as counts
books       what the databases say: who ordered what, and how often
proxy       a TCP line that delays, stalls, resets, cuts
pace        how long things take, in the short form and in the long one
"""
