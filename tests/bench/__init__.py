"""How fast, and how small: `python -m tests.bench` (or `make bench`).

Every figure is the median of some repetitions in one process. Machines differ, so each time is also told as a multiple
of two things timed in the same run: a step of a plain Python loop (the yardstick), and what the least of programs takes
for the same records (`json.loads` and a balance in a dict). Nothing here fails because something was slow.

Times are those of the processor: on a machine that has nothing else to do they are the clock's. The garbage collector
is off while something is timed, as it is in `arrears replay`.

On Kafka, beside Kafka Streams and Quix Streams: `python -m tests.bench.peers` (or `make bench-live`).
"""
