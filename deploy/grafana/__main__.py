"""Writes the dashboards to `deploy/grafana/dashboards`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.pages import PAGES
from deploy.grafana.panels import built

FOLDER: Final = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, str]:
    """What the files are to hold, by name."""
    encode = JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode
    return {f"{page.uid}.json": f"{encode(built(page))}\n" for page in PAGES}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
