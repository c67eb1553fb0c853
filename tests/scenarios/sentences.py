"""The sentences of the contract that scenarios prove: the list items of sentences.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: In the order of the contract, each as scenarios quote it.
SENTENCES: Final = tuple(
    line.removeprefix("- ")
    for line in Path(__file__).with_suffix(".md").read_text().splitlines()
    if line.startswith("- ")
)
