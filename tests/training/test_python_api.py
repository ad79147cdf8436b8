"""`eicorpus.Corpus`: docs/how-to/python.md runs and prints what it states; a snapshot stays pinned; names of strangers stay text."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from eicorpus import Corpus, DataSettings, ManifestDataset

from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.storage.local import LocalStorage
from jobs.python_api.episode import CorpusEpisode
from schemas.errors import ConfigError
from schemas.manifest import load
from tests.training.corpus import (
    ENCODER,
    GRID_HEIGHT,
    GRID_WIDTH,
    NUM_EPISODES,
    WIDTH,
    Trainable,
    length_of,
    segments_of,
)

PAGE = Path(__file__).parents[2] / "docs/how-to/python.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@pytest.fixture
def episode(trainable: Trainable) -> CorpusEpisode:
    with Corpus.open(trainable.corpus) as corpus:
        return corpus.episode(trainable.uids[0])


def test_the_page_s_code_prints_what_the_page_states(trainable: Trainable) -> None:
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    assert [bool(output) for _, output in blocks] == [True, True, True, False]
    for code, output in blocks:
        of_corpus = code.replace('"CORPUS"', repr(str(trainable.corpus)))
        with redirect_stdout(StringIO()) as printed:
            exec(of_corpus.replace('"ENCODER"', repr(ENCODER)), names)
        assert printed.getvalue() == output
    assert names["patches"].shape[1:] == (GRID_HEIGHT, GRID_WIDTH, WIDTH)
    names["corpus"].close()


def test_hours_of_episodes_are_those_of_their_segments(trainable: Trainable) -> None:
    with Corpus.open(trainable.corpus) as corpus:
        rows = {row["uid"]: row for row in corpus.episodes.to_dicts()}
    assert len(rows) == NUM_EPISODES
    for number, uid in trainable.uids.items():
        hours = dict.fromkeys(("high", "low", "actionless", "excluded"), 0.0)
        for start, end, tier in segments_of(number):
            hours[tier] += (end - start) / 10 / 3600
        row = rows[uid]
        assert {tier: row[f"hours_{tier}"] for tier in hours} == pytest.approx(hours)
        assert row["tier"] == max(hours, key=lambda tier: hours[tier])
        assert row["hours"] == pytest.approx(length_of(number) / 36_000)
        assert not {"raw_files", "facts"} & row.keys()


def test_without_tiers_there_is_no_tier(trainable: Trainable) -> None:
    before = snapshot.load(trainable.corpus).number - 1
    with Corpus.open(trainable.corpus, snapshot=before) as corpus:
        frame = corpus.episodes
        read = corpus.episode(frame["uid"][0])
    assert frame.height
    assert frame["tier"].null_count() == frame["hours_high"].null_count() == frame.height
    assert read.table()["tier"].null_count() == read.length


def test_a_snapshot_is_pinned_until_refresh(trainable: Trainable, tmp_path: Path) -> None:
    own = trainable.copied(tmp_path / "corpus")
    with Corpus.open(own.corpus) as corpus:
        before = corpus.snapshot
        held = corpus.episode(own.uids[0])
        rows = snapshot.load(own.corpus).read(own.corpus, "tiers").to_pylist()
        disk = LocalStorage()
        excluded = [row | {"tier": "excluded", "snapshot": before + 1} for row in rows]
        part = write_part(disk, own.corpus, "tiers", excluded)
        publishing.publish(disk, own.corpus, snapshot.load(own.corpus), {"tiers": part}, "again")
        assert set(corpus.episodes["tier"]) == {"high", "low", "actionless"}
        assert corpus.refresh() == before + 1
        assert set(corpus.episodes["tier"]) == {"excluded"}
        assert set(corpus.episode(own.uids[0]).tiers["tier"]) == {"excluded"}
        assert "excluded" not in set(held.tiers["tier"])


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "not a corpus"), ("s3://bucket/corpus", "is a URL; expected a local path")],
)
def test_what_is_no_corpus_is_refused(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Corpus.open(path)


def test_a_manifest_is_read_by_the_loader_of_training(trainable: Trainable) -> None:
    data = DataSettings(encoder=ENCODER)
    with Corpus.open(trainable.corpus) as corpus:
        assert corpus.manifests == ["m"]
        manifest = corpus.manifest("m")
        with pytest.raises(ConfigError, match=r"no manifest\.json"):
            corpus.manifest("other")
        with pytest.raises(ConfigError, match="manifest name"):
            corpus.manifest("../m")
    assert manifest.segments.to_arrow().column_names == load(trainable.manifest).rows.column_names
    assert manifest.segments.height == manifest.facts.num_rows
    samples = manifest.dataset(split="val", data=data)
    direct = ManifestDataset(trainable.manifest, split="val", data=data)
    assert len(samples) == len(direct)
    assert np.array_equal(samples[3]["action"], direct[3]["action"])


def test_names_of_strangers_stay_text(episode: CorpusEpisode) -> None:
    hostile = "<script>alert(1)</script>"
    row = {**episode.row, "source": hostile, "episode_id": '"><img src=x>', "tasks": [hostile]}
    page = replace(episode, row=row)._repr_html_()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;") == 3  # two cells, and the picture's description


def test_a_summary_holds_a_small_picture(episode: CorpusEpisode) -> None:
    page = episode._repr_html_()
    (jpeg,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] > picture.shape[0]
    assert len(page) < 2**18


def test_a_figure_draws_what_is_valid(trainable: Trainable) -> None:
    plotly = pytest.importorskip("plotly", reason="NOT RUN: plotly is not installed")
    assert plotly
    with Corpus.open(trainable.corpus) as corpus:
        unseen = corpus.episode(trainable.uids[2])
        no_action = corpus.episode(trainable.uids[19])
    figure = unseen.plot()
    lines = {line.name: line for line in figure.data}
    x = lines["observation.state left.position_m.x"]
    valid = unseen.valid("observation.state", "left.position_m")
    assert 0 < np.isnan(x.y).sum() == (~valid).sum()
    assert np.array_equal(
        x.y[valid], unseen.values("observation.state", "left.position_m")[valid, 0]
    )
    action = lines["action left.position_m.x"]
    assert action.x[0] == 0.1  # the time it aims at
    assert {shape.x1 for shape in figure.layout.shapes} == {unseen.length / 10}
    assert [a.text for a in no_action.plot().layout.annotations] == ["no state, no action"]


def test_without_plotly_the_extra_is_named(
    episode: CorpusEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.subplots", None)
    with pytest.raises(ConfigError) as refused:
        episode.plot()
    assert refused.value.remedy == "run pip install 'eicorpus[notebook]'"


def test_show_displays_in_a_notebook_and_nowhere_else(
    episode: CorpusEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with pytest.raises(ConfigError, match="needs a notebook"):
        episode.show()
    pytest.importorskip("plotly", reason="NOT RUN: plotly is not installed")
    displayed: list[object] = []
    display = ModuleType("IPython.display")
    display.display = lambda *values: displayed.extend(values)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    episode.show()
    assert displayed[0] is episode
    assert len(displayed) == 2


def test_a_corpus_is_opened_without_torch(trainable: Trainable) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from eicorpus import Corpus\n"
        "corpus = Corpus.open(sys.argv[1]); print(corpus.episodes.height)\n"
        "try:\n    corpus.manifest('m').dataset()\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(trainable.corpus)],
        capture_output=True,
        text=True,
        check=True,
    )
    height, error = done.stdout.splitlines()[:2]
    assert int(height) == NUM_EPISODES
    assert error.startswith("ConfigError")
    assert "dataset() needs torch" in error
