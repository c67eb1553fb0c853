"""The domain of the arrears monitor: what is owed since when, and what follows from it.

Pure and synchronous: it is told the time, it returns what is to be published, it does no I/O and knows no Kafka.
"""
