"""``./scripts/bench``: this house against others. Both sides in one run, one server process at a time, on one core.

json_view, wait, hop, mesh_call, fleet, cache    the benchmarks: who is compared, with what, and to what end
model        what a benchmark is made of, and what comes of it
lab          what all of them use: children on a core, one measurement
child        one server process: started, waited for, ended by its pid
proc         CPU time, memory and cores, out of /proc
serve        runs inside the child: one application on one server
servers/     the servers, one small file each
footing      what each of them stands on: its socket, its loop, its end
subjects/    the applications, one small file each
calls        runs inside a child: calls through the mesh client and without it
crowd, hits  run inside a child: the registry under many, and the cache
report       tables for people, JSON for programs
picture      the same as an SVG
"""
