"""How fast, and how small: `python -m tests.bench` (or `make bench`), in three parts.

The domain alone: every figure is the median of some repetitions in one process. Machines differ, so each time is also
told as a multiple of two things timed in the same run: a step of a plain Python loop (the yardstick), and what the
least of programs takes for the same records (`json.loads` and a balance in a dict). Times are those of the processor:
on a machine that has nothing else to do they are the clock's. The garbage collector is off while something is timed, as
it is in `arrears replay`.

The peers: the worker beside Kafka Streams and Quix Streams on one broker (`tests.bench.peers`).

Live: what is on a broker only: latency, an idle worker, marks that fall together, uneven loads, replays, recovery
(`tests.bench.scenes`).

Nothing here fails because something was slow. A whole run takes about an hour, in which the machine should have
nothing else to do; it is kept in `results`, and the README's tables are made from the newest of them.
"""
