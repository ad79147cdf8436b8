"""The digest of rows: of their content and of nothing else; and what a reader refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.catalog import MOST_FRAMES
from schemas.errors import ConfigError
from schemas.manifest import (
    ERASED_FILE,
    FACTS_FILE,
    REDACTION_FILE,
    ROW_SCHEMA,
    ROWS_FILE,
    ManifestFacts,
    load,
    load_facts,
    load_rows,
    page_of,
    page_sha256,
    rows_sha256,
    version_for,
)
from schemas.parquet_file import columns_sha256
from schemas.paths import OutsideCorpus


def row(uid: str = "a", **changes: Any) -> dict[str, Any]:
    latent = {"camera": "head", "encoder_id": "dino", "path": "x.safetensors", "sha256": "0"}
    return {
        "uid": uid,
        "start": 0,
        "end": 10,
        "source": "s",
        "embodiment": "e",
        "dataset_path": "datasets/s/e",
        "episode_index": 3,
        "tier": "high",
        "tasks": ["policy"],
        "reasons": [],
        "split": "train",
        "weight": 0.5,
        "text": "倒水",
        "caption_id": None,
        "latents": [latent],
        "licence_class": "permissive",
        "content_sha256": "f" * 64,
        **changes,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ROW_SCHEMA)


def test_the_digest_does_not_see_chunks_offsets_or_how_texts_are_held() -> None:
    whole = table(row("a"), row("b"), row("c", caption_id="k", latents=[]), row("d"))
    cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3)])
    inner = table(row("0"), *whole.to_pylist(), row("9")).slice(1, 4)
    coded = whole.set_column(3, "source", whole["source"].dictionary_encode())
    large = whole.set_column(0, "uid", whole["uid"].cast(pa.large_string()))
    taken = whole.take([3, 2, 1, 0]).take([3, 2, 1, 0])
    digests = {rows_sha256(each) for each in (whole, cut, inner, coded, large, taken)}
    assert len(digests) == 1


def test_the_digest_is_the_one_it_always_was() -> None:
    """Of a fixed table: another value means that no manifest that was ever published can be checked any more."""
    found = columns_sha256(pa.table({"a": ["x", None, ""], "b": [[1.5], None, []]}))
    assert found == "9b6c55ee1f5af80cf629242eed37abb5287d8e9e7844d11bdaf1f9a5fcc62413"
    one = row()["latents"]
    rows = table(row("a"), row("b", latents=[]), row("c", latents=one * 2))
    assert rows_sha256(rows) == "adf566a0a37b6c4c8b0d9c3a44bdac03ad3b334863779dc8c7846cf37bd51dbe"


def test_the_digest_does_not_see_whether_latents_lie_alone_or_in_a_pack() -> None:
    """However runs were cut, and after `compact --latents`: but it sees what they are."""

    def latents(path: str, **changes: Any) -> list[dict[str, Any]]:
        head = {"camera": "head", "encoder_id": "e-1", "sha256": "0", "path": path}
        text = {
            "camera": "",
            "encoder_id": "text_x-1",
            "sha256": "1",
            "path": "datasets/s/e/latents/text_x-1/chunk-000/text/episode_000003.safetensors",
        }
        return [head | changes, text | ({"path": path} | changes if changes else {})]

    alone = "datasets/s/e/latents/e-1/chunk-000/head/episode_000003.safetensors"
    pack = "datasets/s/e/latents/e-1/packs/0123456789abcdef.tar"
    of_files = table(row("a", latents=latents(alone)), row("b", latents=[]))
    lies = {"pack_offset": 512, "num_bytes": 9}
    of_packs = table(row("a", latents=latents(pack, **lies)), row("b", latents=[]))
    assert rows_sha256(of_packs) == rows_sha256(of_files)
    moved = table(
        row("a", latents=latents(pack, **lies | {"pack_offset": 1024})), row("b", latents=[])
    )
    assert rows_sha256(moved) == rows_sha256(of_files)
    other = table(row("a", latents=latents(pack, **lies)), row("b", latents=[]))
    changed = other.to_pylist()
    changed[0]["latents"][0]["sha256"] = "2"
    assert rows_sha256(table(*changed)) != rows_sha256(of_files)
    assert (version_for(of_files), version_for(of_packs)) == (1, 2)


def test_rows_of_version_1_are_read(tmp_path: Path) -> None:
    """Their latents have no offset."""
    names = [field.name for field in ROW_SCHEMA.field("latents").type.value_type][:4]
    older = pa.struct([(name, pa.string()) for name in names])
    at = ROW_SCHEMA.names.index("latents")
    schema = ROW_SCHEMA.set(at, pa.field("latents", pa.list_(older)))
    pq.write_table(
        table(row("a"))
        .cast(ROW_SCHEMA)
        .drop_columns("latents")
        .add_column(
            at,
            schema.field("latents"),
            pa.array([[{n: row()["latents"][0][n] for n in names}]], pa.list_(older)),
        ),
        tmp_path / ROWS_FILE,
    )
    assert load_rows(tmp_path).to_pylist() == table(row("a")).to_pylist()


def test_the_digest_of_a_page_is_the_one_it_always_was() -> None:
    """By hand: sha256 of {"a":{"x":0,"y":true},"b":[1.5,null,"\\u5012"]}."""
    found = page_sha256({"b": [1.5, None, "倒"], "a": {"y": True, "x": 0}})
    assert found == "ea3b0078f636cc58dd895359c816efa6bc716523eef0cbc8480a7723236c5c05"


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 0.5000001},
        {"text": "倒 水"},
        {"caption_id": ""},
        {"latents": []},
        {"tasks": []},
        {"tasks": ["pol", "icy"]},
        {"end": 11},
        {"licence_class": None},
    ],
)
def test_every_change_of_content_is_seen(changes: dict[str, Any]) -> None:
    assert rows_sha256(table(row())) != rows_sha256(table(row(**changes)))


def test_order_and_borders_between_texts_are_content() -> None:
    assert rows_sha256(table(row("a"), row("b"))) != rows_sha256(table(row("b"), row("a")))
    assert columns_sha256(pa.table({"a": ["ab", "c"]})) != columns_sha256(
        pa.table({"a": ["a", "bc"]})
    )
    assert columns_sha256(pa.table({"a": [["x"], []]})) != columns_sha256(
        pa.table({"a": [[], ["x"]]})
    )


def test_a_newer_or_damaged_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="manifest build"):
        load_facts(tmp_path)
    page = tmp_path / "manifest.json"
    page.write_text(json.dumps({"manifest_version": 3, "and": "what else it has"}))
    with pytest.raises(ConfigError, match=r"version 3; this eicorpus reads up to version 2"):
        load_facts(tmp_path)
    for text in ("{", "[]", '{"manifest_version": 1}', '{"manifest_version": "x"}'):
        page.write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            load_facts(tmp_path)


def published(folder: Path, rows: pa.Table) -> None:
    facts = ManifestFacts.model_validate(
        {
            "manifest_version": 1,
            "name": folder.name,
            "corpus_uid": "",
            "snapshot": 1,
            "where": "",
            "text_policy": "source",
            "policy": {"name": "", "digest": "", "text": ""},
            "split": {"by": "", "val": 0, "test": 0},
            "mixture": {"text": "", "digest": "", "by": [], "draw_hours": 0, "groups": []},
            "num_rows": len(rows),
            "num_episodes": len(rows),
            "hours": {},
            "rows_sha256": rows_sha256(rows),
            "statistics": None,
        }
    )
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(page_of(facts)))
    pq.write_table(rows, folder / "manifest.parquet")


@pytest.mark.parametrize(
    ("inside", "said"),
    [("", "manifests/m"), ("manifests", "m"), ("manifests/m", "."), ("manifests/n", "../m")],
)
def test_the_corpus_is_found_from_wherever_its_manifest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, said: str
) -> None:
    """And with it what was forgotten since."""
    published(tmp_path / "manifests" / "m", table(row("a"), row("b", episode_index=4)))
    (tmp_path / "manifests" / "n").mkdir()
    forgotten = {"erased": [{"dataset_path": "datasets/s/e", "episode_index": 4}]}
    (tmp_path / "manifests" / "erased.json").write_text(json.dumps(forgotten))
    monkeypatch.chdir(tmp_path / inside)
    found = load(Path(said))
    assert found.corpus == tmp_path
    assert [found.row(k).uid for k in range(len(found))] == ["a"]


def test_manifests_behind_a_link_are_refused(tmp_path: Path) -> None:
    published(tmp_path / "elsewhere" / "m", table(row()))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "manifests").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutsideCorpus, match="is a link"):
        load(corpus / "manifests" / "m")


@pytest.mark.parametrize(
    ("name", "value"),
    [("start", -1), ("end", MOST_FRAMES + 1), ("end", 2**62), ("episode_index", -1)],
)
def test_a_segment_of_no_episode_is_refused(tmp_path: Path, name: str, value: int) -> None:
    """A reader makes a table of every timestep of it. The digest is that of these rows: whoever made it made that too."""
    published(tmp_path / "manifests" / "m", table(row(**{name: value})))
    with pytest.raises(ConfigError, match=f"column {name} contains {value}, which is out of range"):
        load(tmp_path / "manifests" / "m")


@pytest.mark.parametrize("name", [FACTS_FILE, ROWS_FILE, ERASED_FILE, REDACTION_FILE])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_only_plain_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "manifests" / "m"
    published(folder, table(row()))
    path = (folder.parent if name == ERASED_FILE else folder) / name
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    with pytest.raises(OutsideCorpus, match=name):
        load(folder)
