"""Writes `deploy/asyncapi.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deploy.asyncapi.document import text

FILE: Final = Path(__file__).parents[1] / "asyncapi.yaml"

if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
