"""The shell: it brings records and time to `models`, and carries the results away (files, Kafka, the terminal)."""
