"""The jars of the broker: fetched once by their exact coordinates, each held to its checksum at every start.

Laws of this file:

- A jar stands in the folder under its own name only after its checksum was right: an interrupted fetch leaves none.
- What is there is checked again at each start (0.1 s), and fetched anew if it is damaged.
- Nothing is resolved: the list in `jars.txt` is all that the broker needs, and names each version.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final, NamedTuple

from streams.faults import Unusable
from streams.local_kafka.extra import needs_the_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Fetched at a time: enough to hide the way to the repository and back, few enough to be no nuisance to it.
_AT_A_TIME: Final = 4
_STAGING: Final = ".fetching-"


class Jar(NamedTuple):
    """One line of the list."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file, as the repositories call it too."""
        return f"{self.artifact}-{self.version}.jar"


def _read_list() -> tuple[Jar, ...]:
    text = (Path(__file__).parent / "jars.txt").read_text(encoding="utf-8")
    return tuple(Jar(*line.split()) for line in text.splitlines() if line and not line.startswith("#"))


JARS: Final = _read_list()
KAFKA_VERSION: Final = next(jar.version for jar in JARS if jar.artifact == "kafka_2.13")


def kafka_jars(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The jars, all of them whole; what is missing is fetched into `folder` first. Raises `Unusable`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            lacking = [jar for jar in JARS if not _is_whole(folder / jar.name, jar)]
            if lacking:
                say(f"fetching {len(lacking)} of the {len(JARS)} jars of Kafka {KAFKA_VERSION} into {folder}")
                _fetch(lacking, folder)
    except OSError as error:
        raise Unusable(
            f"the jars of Kafka cannot be kept in {folder} ({error.strerror or error}): "
            "make room or set its permissions, or set XDG_CACHE_HOME to another folder"
        ) from None
    return [folder / jar.name for jar in JARS]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else fetches meanwhile; what a fetch that was killed has left behind is cleared away."""
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _is_whole(path: Path, jar: Jar) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _fetch(jars: list[Jar], folder: Path) -> None:
    staging = Path(mkdtemp(prefix=_STAGING, dir=folder))
    try:
        fetch = _fetcher(staging)
        executor = ThreadPoolExecutor(_AT_A_TIME, "fetch")
        try:
            for jar, path in zip(jars, executor.map(fetch, jars), strict=True):
                if not _is_whole(path, jar):
                    raise Unusable(
                        f"{jar.name} is not the jar that was expected (its SHA-256 is another): "
                        "try again, and if it stays so look into the repository that it comes from"
                    )
                shutil.copyfile(path, staging / jar.name)
                (staging / jar.name).replace(folder / jar.name)
        finally:
            executor.shutdown(cancel_futures=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetcher(staging: Path) -> Callable[[Jar], Path]:
    """What brings a jar by its exact coordinates, and says where it is. It raises `Unusable`, or `OSError` of a disk.

    jgo knows the public repository ("central"); a mirror is named in jgo's own settings file, in its place or beside
    it. What Maven has on this machine is used too.
    """
    with needs_the_extra():
        from jgo.config import GlobalSettings  # noqa: PLC0415  # only to fetch: it takes half a second
        from jgo.maven import MavenContext  # noqa: PLC0415
    try:
        settings = GlobalSettings.load()
    except configparser.Error as error:
        raise Unusable(f"jgo's settings file cannot be read ({' '.join(str(error).split())}): mend it") from None
    public = MavenContext().remote_repos
    maven = MavenContext(
        repo_cache=staging / "repository",
        local_repos=[Path(settings.repo_cache)],
        remote_repos=settings.repositories | public | settings.repositories,  # theirs first; a name of ours is theirs
    )

    def fetch(jar: Jar) -> Path:
        try:
            path: Path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.strerror:  # the disk, not the network
                raise
            raise Unusable(
                f"the jars of Kafka cannot be fetched ({jar.name}: {_reason(error)}): go online for the first start, "
                "or name a mirror (central = https://…) under [repositories] in jgo's settings file, ~/.config/jgo.conf"
            ) from None
        return path

    return fetch


def _reason(error: Exception) -> str:
    """What lies at the bottom of it, in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None and isinstance(cause, Exception):
        error = cause
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
