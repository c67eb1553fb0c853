"""`arrears load`: files of JSON lines into the topics, in the order of what happened, each record once.

`lines` puts the lines of all files into one order; `resume` remembers how far a load has come; `sender` speaks to
Kafka; `run` brings them together.
"""
