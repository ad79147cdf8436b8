"""The corpus's latents as a LeRobot feature: what a user of LeRobot would do who wants to read them without decoding videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import Manifest
from training.data.latent_reader import LatentFile

FEATURE = "observation.latents"


def with_latents(manifest: Manifest, dataset: Path, out: Path, num_episodes: int) -> Path:
    """A copy of the first episodes of a data set with the latents of every timestep as float32 and without videos: LeRobot has no bfloat16, and a row for each
    timestep where ours has a picture for every third.
    """
    shutil.copytree(dataset / "meta", out / "meta")
    info = json.loads((out / "meta" / "info.json").read_text())
    rows = {row.episode_index: row for row in map(manifest.row, range(len(manifest)))}
    numbers = range(min(num_episodes, len(rows)))
    width = 0
    for number in numbers:
        inner = info["data_path"].format(episode_chunk=0, episode_index=number)
        table = pq.read_table(dataset / inner)
        (latent,) = rows[number].latents
        file = LatentFile(manifest.corpus / latent.path, latent.path)
        facts = file.facts
        memory = np.empty((facts.num_tokens, facts.width), np.uint16)
        width, values = memory.size, []
        for timestep in range(0, facts.length, facts.grid_stride):
            file.read(timestep, memory)
            values.append((memory.astype(np.uint32) << 16).view(np.float32).reshape(-1))
        at = np.arange(table.num_rows) // facts.grid_stride
        flat = pa.array(np.concatenate([values[k] for k in at]))
        column = pa.FixedSizeListArray.from_arrays(flat, width).cast(pa.list_(pa.float32()))
        (out / inner).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.append_column(FEATURE, column), out / inner, compression="none")
    info["features"] = {k: v for k, v in info["features"].items() if v["dtype"] != "video"}
    info["features"][FEATURE] = {"dtype": "float32", "shape": [width], "names": None}
    lengths = _first_lines(out / "meta" / "episodes.jsonl", len(numbers))
    _first_lines(out / "meta" / "episodes_stats.jsonl", len(numbers))
    info |= {"total_episodes": len(numbers), "total_videos": 0, "video_path": None}
    info |= {"total_frames": sum(json.loads(line)["length"] for line in lengths)}
    info["splits"] = {"train": f"0:{len(numbers)}"}
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out


def _first_lines(path: Path, num: int) -> list[str]:
    lines = path.read_text().splitlines()[:num]
    path.write_text("".join(f"{line}\n" for line in lines))
    return lines
