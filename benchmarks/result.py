"""What every benchmark prints with `--json`: its figures, and what they were measured on.

docs/results/data/NAME.json is a list of such objects, and `make reference` writes the tables of docs/results/ from them. `KEYS` of a benchmark explains
its figures; a key that ends in `_*` stands for one figure for each case.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "")
    about = {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    with suppress(ImportError):  # a machine that only trains has none
        import av

        about |= {"pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info}
    return about


def gpu() -> dict[str, Any]:
    """For `machine()`, of a measurement with torch; {} where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}


def commit() -> str:
    """The commit of the checkout, with a mark where files differ from it; empty without git."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def as_json(
    name: str,
    measured_on: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
) -> str:
    """One object of docs/results/data/`name`.json: figures by key, or whole tables. `measured_on` is `machine()` from before the measurement."""
    date = datetime.now(UTC).date().isoformat()
    about = {"benchmark": name, "machine": dict(measured_on), "commit": commit(), "date": date}
    measured = {"tables": tables} if figures is None else {"figures": figures}
    return json.dumps(about | {"transcribed": False} | measured)
