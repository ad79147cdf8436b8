"""A machine that others use, and a manifest that cannot be trained on: reported at once, and cheap."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.corpus import publishing, snapshot
from ingest.storage.local import LocalStorage
from jobs import machine
from jobs.cli import app
from jobs.ui.manifest_report import refuse_without_latents
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.manifest import ROW_SCHEMA, ROWS_FILE, load_facts
from schemas.threads import threads_for
from tests.training.corpus import Trainable
from tests.training.test_train_cli import SMALL, train
from tests.training.test_train_cli import words as training_words


@pytest.mark.parametrize(
    ("num", "load", "quota", "wanted"),
    [
        (2, 0.0, None, 2),
        (2, 0.4, None, 2),
        (2, 1.0, None, 1),
        (2, 16.0, None, 1),
        (16, 3.2, None, 13),
        (16, 0.0, 4.0, 4),
        (16, 0.0, 0.5, 1),
        (1, 0.0, None, 1),
    ],
)
def test_threads_by_hand(num: int, load: float, quota: float | None, wanted: int) -> None:
    assert threads_for(num, load, quota_cores=quota) == wanted


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, files: dict[str, str], wanted: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine.quota_cores(tmp_path) == wanted


def test_whoever_sets_the_number_of_threads_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.VARIABLE, "7")
    assert machine.compute_threads() == 7
    monkeypatch.setenv(machine.VARIABLE, "many")
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine, "quota_cores", lambda: None)
    monkeypatch.setattr("os.getloadavg", lambda: (2.0, 0.0, 0.0))
    assert machine.compute_threads() == 2


def drop_latents(corpus: Path) -> None:
    """As before `eicorpus latents`."""
    now = snapshot.load(corpus)
    tables = {t: [] if t == "latents" else now.parts(t) for t in TABLES if now.parts(t)}
    publishing.publish_tables(LocalStorage(), corpus, now, tables, "none")


def without_latents(mine: Trainable) -> Path:
    """The corpus and a manifest as they were before `eicorpus latents`."""
    drop_latents(mine.corpus)
    rows = pq.read_table(mine.manifest / ROWS_FILE)
    none = pa.array([[]] * len(rows), type=ROW_SCHEMA.field("latents").type)
    at = rows.schema.get_field_index("latents")
    pq.write_table(rows.set_column(at, "latents", none), mine.manifest / ROWS_FILE)
    return mine.manifest


def test_a_manifest_without_latents_is_refused_before_torch_is_imported(
    trainable: Trainable, tmp_path: Path
) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    folder = without_latents(mine)
    encode = f"`eicorpus latents images {mine.corpus} --encoder dinov3_vits16 --weights FOLDER`"
    rebuild = f"`eicorpus manifest build {mine.corpus} m_with_latents --val 0.2 --test 0.1`"
    with pytest.raises(ConfigError, match=f"run {encode} .*, then {rebuild}"):
        refuse_without_latents(folder)
    code = (
        "import sys\n"
        "from jobs.commands.train import command\n"
        "from schemas.errors import ConfigError\n"
        "from pathlib import Path\n"
        f"try: command(manifest=Path({str(folder)!r}), out=Path('x'))\n"
        "except ConfigError as error: assert 'eicorpus latents' in str(error), error\n"
        "else: sys.exit('not refused')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_that_the_refusal_names_lead_to_a_run(
    trainable: Trainable, tmp_path: Path
) -> None:
    """Pasted as they are, but for the weights, which are not trained here."""
    mine = trainable.copied(tmp_path / "my corpus")
    drop_latents(mine.corpus)
    options = ["--where", "embodiment <> 'human_video'", "--text", "source", "--val", "0.3"]
    words = ["manifest", "build", str(mine.corpus), "early", *options]
    built = CliRunner().invoke(app, words)
    assert built.exit_code == 0, built.output
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="no segment has image latents") as refused:
        train(mine.corpus / "manifests/early", out)
    commands = re.findall("`(eicorpus [^`]*my corpus[^`]*)`", str(refused.value))
    encode, rebuild = (shlex.split(command)[1:] for command in commands)
    assert f"`{commands[0]}`" in " ".join(built.stderr.split())
    at = encode.index("--encoder")
    assert encode[at:] == ["--encoder", "dinov3_vits16", "--weights", "FOLDER"]
    untrained = CliRunner().invoke(
        app, [*encode[:at], "--encoder", "dinov3_tiny", "--untrained", "0"]
    )
    assert untrained.exit_code == 0, untrained.output
    by_now = f"run `{re.escape(commands[1])}`: the corpus now has latents of dinov3_tiny"
    with pytest.raises(ConfigError, match=by_now):
        refuse_without_latents(mine.corpus / "manifests/early")
    rebuilt = CliRunner().invoke(app, rebuild)
    assert rebuilt.exit_code == 0, rebuilt.output
    facts = [load_facts(mine.corpus / "manifests" / name) for name in ("early", "early_with_latents")]  # fmt: skip
    kept = {"where", "text_policy", "split", "policy", "num_rows"}
    assert facts[0].model_dump(include=kept) == facts[1].model_dump(include=kept)
    small = tuple(each for each in SMALL if not each.startswith("data.encoder"))
    done = CliRunner().invoke(
        app,
        training_words(
            mine.corpus / "manifests/early_with_latents", out, "--until", "1", small=small
        ),
    )
    assert done.exit_code == 0, done.output


def test_a_manifest_with_latents_is_not(trainable: Trainable) -> None:
    refuse_without_latents(trainable.manifest)


@pytest.mark.parametrize("has", [True, False])
def test_a_manifest_that_is_built_before_latents_says_so(
    trainable: Trainable, monkeypatch: pytest.MonkeyPatch, *, has: bool
) -> None:
    if not has:
        monkeypatch.setattr("jobs.stages.manifest.has_latents", lambda rows: False)
    words = ["manifest", "build", str(trainable.corpus), "new", "--dry-run", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert ("no segment has latents" in done.stderr) != has
