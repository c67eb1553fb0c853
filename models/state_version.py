"""The versions of the durable state: which a release reads, and which it writes.

A release reads every version up to `VERSION`. Until a setting says otherwise it goes on writing `WRITES`, the version
that the release before it wrote, so that a rollback to that one finds nothing that it cannot read.

A release that changes the form of the state

1. raises `VERSION` by one and leaves `WRITES` as it is: the codec encodes both forms, by the version that it is given;
2. says so in CHANGELOG.md: operators roll it out, and set `state_version` once they will not go back;
3. leaves `WRITES` to the release after it to raise, and `OLDEST` to the one that drops the encoder of the old form.

The first byte of a head, of a checkpoint and of the rows that are no account's is the version. The rows of an account
have none, nor has what an account keeps packed within its head: both have the form of their head. So whoever writes a
head of another version, in which they differ, writes all of them anew.
"""

from __future__ import annotations

from typing import Final

#: The newest version that this release reads, and can write.
VERSION: Final = 1
#: What it writes until a setting says otherwise: what the release before it wrote. There was none before the first.
WRITES: Final = 1
#: The oldest that it can write.
OLDEST: Final = 1

#: What state of a version begins with.
VERSION_BYTES: Final = tuple(bytes((version,)) for version in range(256))


class NewerState(Exception):
    """State that was written by a newer release: this one cannot read it."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"state of version {version}; this release reads up to version {VERSION}: start a newer release"
        )
        self.version = version


def check_version(state: bytes) -> None:
    """Look at the version that state begins with. Raises NewerState."""
    if state[0] > VERSION:
        raise NewerState(state[0])


def check_written(version: int) -> None:
    """Whether this release can write a version. Raises ValueError, which says what it can."""
    if not OLDEST <= version <= VERSION:
        versions = str(VERSION) if OLDEST == VERSION else f"{OLDEST} to {VERSION}"
        raise ValueError(f"must be {versions}, what this release can write; got {version}")
