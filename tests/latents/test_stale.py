"""`eicorpus stale` on latents: of another video, of an episode that was removed, and what has none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from typer.testing import CliRunner

from ingest.corpus import snapshot
from ingest.latents.plan import encoder_states
from ingest.models.encoder import ImageEncoder
from jobs.cli import app
from schemas.catalog import TABLES
from tests.ingest.verify_corpus import replace_part
from tests.latents.corpora import encode, rows_of


def test_latents_are_counted_by_what_has_become_of_their_video(
    corpus: Path, tiny: ImageEncoder
) -> None:
    assert list(encoder_states(corpus, snapshot.load(corpus))) == []
    encode(corpus, tiny, where="length < 40")
    [state] = encoder_states(corpus, snapshot.load(corpus))
    assert (state.encoder_id, state.up_to_date, state.stale, state.missing) == (tiny.id, 2, 0, 1)
    rows = rows_of(corpus)
    rows[0]["video_sha256"], rows[1]["uid"] = "0" * 64, "gone"
    replace_part(corpus, "latents", pa.Table.from_pylist(rows, schema=TABLES["latents"]), part=0)
    [state] = encoder_states(corpus, snapshot.load(corpus))
    assert (state.up_to_date, state.other_video, state.orphaned, state.missing) == (0, 1, 1, 2)
    found = CliRunner().invoke(app, ["stale", str(corpus), "--json", "--exit-code"])
    assert found.exit_code == 1
    [said] = json.loads(found.stdout)["result"]["latents"]
    assert (said["stale"], said["reason"].split(" ")[0]) == (2, "1")
    assert (
        "of an episode that was removed" in CliRunner().invoke(app, ["stale", str(corpus)]).stdout
    )
