"""An enforcement service, written by somebody who has read the README and deploy/asyncapi.yaml, and nothing else.

It is an example to copy from, and a proof that these two suffice: tests/live/test_enforcement.py runs it on the live
system and kills it at random. The numbers in its comments are those of the guide in deploy/asyncapi.yaml.
"""
