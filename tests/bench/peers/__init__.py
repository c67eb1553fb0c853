"""The live worker beside its peers, on one broker: `python -m tests.bench.peers` (or `make bench-live`).

Everybody reads the same topics, exactly once, with state that outlives its process: ours as `arrears worker` with the
full rule, one process and two; Kafka Streams (Java, 2 threads) and Quix Streams with the peers' job, which is less:
per account its balance and since when it owes, and one JSON record out whenever it enters or leaves arrears.

Records/s are counted from the first record processed to the instant at which everything is seen to be committed, from
outside and alike for all; processor seconds are of the same span. Records out are those committed when the run is over:
ours tells more once it is fenced, and marks have passed. What a peer needs is fetched once into the cache folder (a JDK
and Maven have to be there for Kafka Streams); a peer that cannot be had is left out, with a word.

Compare within one run only: machines differ, and so do their hours. Where something else runs beside it, the
microseconds of processor a record say more than the records a second.
"""
