"""Contact sheets for the page, within a budget of bytes; a video that cannot be read says so in its place."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.corpus.layout import video_file
from ingest.curation.captions.sheet import SheetPlan, segment_sheet
from ingest.report.html import Markup, image, tag
from schemas.errors import SourceError, TransientError
from schemas.paths import OutsideCorpus, within

PLAN = SheetPlan(max_frames=8, tile_px=160, columns=8, jpeg_quality=72)
BUDGET_BYTES = 12 * 2**20  # of all pictures, as they stand in the page


@dataclass(kw_only=True)
class Sheets:
    """Draws segments until the budget is spent. `row` of `sheet` is a segment with its episode's place and cameras."""

    corpus: Path
    budget_bytes: int = BUDGET_BYTES
    left_out: int = 0

    def sheet(self, row: Mapping[str, Any]) -> Markup:
        """A picture, or one line on why there is none."""
        cameras = [camera["name"] for camera in row["cameras"] or ()]
        if not cameras:
            return tag("p", "no camera", class_="none")
        # A wrist sees its own gripper: any other camera tells more.
        camera = next((name for name in cameras if "wrist" not in name), cameras[0])
        name = video_file(row["episode_index"], f"observation.images.{camera}")
        try:
            path = within(self.corpus, f"{row['dataset_path']}/{name}")
        except OutsideCorpus:
            return tag("p", "its video is outside the corpus", class_="none")
        rate_hz = row["length"] / row["duration_s"]
        try:
            sheet, _ = segment_sheet(path, row["start"], row["end"], rate_hz, PLAN)
        except (SourceError, TransientError) as error:
            return tag("p", f"no picture: {error.message}", class_="none")
        jpeg = base64.b64encode(sheet.jpeg).decode()
        if len(jpeg) > self.budget_bytes:
            self.left_out += 1
            return tag("p", "omitted: the page reached its size limit", class_="none")
        self.budget_bytes -= len(jpeg)
        return image(jpeg, f"{row['source']} {row['episode_id']}, camera {camera}")
