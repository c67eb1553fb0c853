"""The third part of a run: workers on a broker, each scene with a broker of its own.

How long it takes until a command can be read; what an idle worker costs; how fast marks drain that fall together, loads
that are uneven, replays, recovery. No guard holds anything back.
"""
