"""The live worker beside its peers, on one broker: `python -m tests.bench.peers`, and a part of `make bench`.

Everybody reads the same topics, exactly once, with state that outlives its process. Kafka Streams (Java, 2 threads) and
Quix Streams do the peers' job: per account its balance and since when it owes, and one JSON record out whenever it
enters or leaves arrears. Ours is `arrears worker`, one process and two, with two jobs. *Full rule*: everything on.
*Same outputs*: a policy under which it, too, tells of nothing but arrears that began and were cleared. Its account
views go out all the same, and what comes and goes before it has read everything is told to nobody: so it is in the
contract.

Records/s are counted from the first record processed to the last committed record: all positions committed, and all
that follows from the inputs published, by the time at which the broker appended it. Beside it stands the speed to the
last committed position, after which ours decides and publishes. It is seen from outside, and alike for all; processor
seconds are of the span to the last record. What a peer needs is fetched once into the cache folder (a JDK and Maven
have to be there for Kafka Streams); a peer that cannot be had is left out, with a word.

Compare within one run only: machines differ, and so do their hours. Where something else runs beside it, the
microseconds of processor a record say more than the records a second.
"""
