"""The demo, as a newcomer runs it: on a port that is free, to its end, and stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streams.sample import Sample, write_sample

pytestmark = pytest.mark.live

DEMO = [sys.executable, "-m", "streams.cli", "demo", "--seconds", "20"]


def test_it_plays_to_its_end_and_matches_the_replay(tmp_path: Path) -> None:
    write_sample(tmp_path / "days", Sample(days=10))  # as fast as a month in a minute
    own = ["--data", str(tmp_path / "days"), "--keep", str(tmp_path / "kept")]
    ended = subprocess.run([*DEMO, *own], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "matches the replay of the topics" in ended.stdout
    assert "worker-2 is killed" in ended.stdout
    assert not ended.stderr
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)]


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    # Whoever runs the tests in the background has turned Ctrl-C off for them.
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as demo:
        assert demo.stdout is not None
        while "records sent" not in demo.stdout.readline():
            assert demo.poll() is None
        time.sleep(2)
        demo.send_signal(signal.SIGINT)
        _, told = demo.communicate(timeout=40)
    assert demo.returncode == 130
    assert told.strip() == "stopped: the broker and the workers have ended"
    assert not list(Path(tmp_path).glob("arrears-demo-*"))
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)]
