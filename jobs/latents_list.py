"""`eicorpus latents --list`: every encoder."""

from __future__ import annotations

from ingest.models.encoders import ENCODERS
from jobs.output import answer_json, stdout, table


def show_list(*, as_json: bool) -> None:
    """Every encoder: its tokens, where its weights are, and its licence."""
    columns = ["encoder", "picture_px", "patches", "width", "prefix", "hub_id", "licence", "gated"]
    rows = [
        [
            spec.name,
            spec.size_px,
            spec.grid**2,
            spec.width,
            spec.num_prefix,
            spec.hub_id or ("none: --untrained only" if spec.has_weights else "none: needs none"),
            spec.licence,
            "yes" if spec.is_gated else "no",
        ]
        for spec in ENCODERS.values()
    ]
    if as_json:
        answer_json({"encoders": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("encoders", columns, rows))
