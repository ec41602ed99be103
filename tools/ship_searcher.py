"""Put the adapter of a finished run into the package, as the searcher that comes with it.

    python tools/ship_searcher.py runs/four-sets/posterior.0/run

The adapter is copied bit for bit; in its settings its base gets the name that it has on every
machine. The model card beside it (README.md) is written by hand.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from exsearch.models.embedded import EMBEDDED_MODEL, SEARCHER_FOLDER
from exsearch.models.settings import MODEL_FILE, resolve_model

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
MOST = 12_000_000  # bytes


def main() -> None:
    """Copy the run's best model; refuses one that is no adapter, or too large for a package."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} RUN")
    model = Path(resolve_model(sys.argv[1]))
    if not (model / WEIGHTS).is_file():
        sys.exit(f"{model}: no adapter; train with lora_rank")
    if (size := (model / WEIGHTS).stat().st_size) > MOST:
        sys.exit(f"{model / WEIGHTS}: {size} bytes, more than {MOST}: take a smaller lora_rank")
    SEARCHER_FOLDER.mkdir(exist_ok=True)
    settings = json.loads((model / SETTINGS).read_text())
    settings["base_model_name_or_path"] = EMBEDDED_MODEL
    (SEARCHER_FOLDER / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    for name in (WEIGHTS, MODEL_FILE):
        shutil.copyfile(model / name, SEARCHER_FOLDER / name)
    print(f"{SEARCHER_FOLDER}: {size} bytes, from {model}")


if __name__ == "__main__":
    main()
