"""The command line."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run a command."""
    from exsearch.build import train

    print(train(Path(sys.argv[1]), overrides=tuple(sys.argv[2:])))
