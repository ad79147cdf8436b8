"""Every source read from a bucket gives the corpus that it gives from a folder, to the byte, with a cache that is smaller than it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.registry import ADAPTERS
from benchmarks.raw import mano_model
from ingest.pipeline.assets import NO_ASSETS, Assets
from ingest.raw_data import object_parts
from ingest.raw_data.bucket_source import fetch_metadata, listed, reading
from ingest.storage.open_store import open_store
from schemas.regular_file import is_placeholder
from tests import generators
from tests.faults.runs import facts, run, tree

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", sorted(ADAPTERS))
def test_a_source_in_a_bucket_gives_the_same_corpus(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"WHOLE_BYTES": 0, "BLOCK_BYTES": 4096, "GAP_BYTES": 8192, "MOST_BYTES": 65536}
    for name, value in sizes.items():  # so that what can be read in parts is
        monkeypatch.setattr(object_parts, name, value)
    written = generators.write(source, tmp_path / "raw")
    assets = NO_ASSETS
    if written.needs_mano:
        assets = Assets(mano_dir=str(mano_model.write(tmp_path / "mano")))
    request = {"source": source, "options": written.options, "assets": assets}
    local = run(written.root, tmp_path / "local", **request)
    assert local.committed

    uri = f"memory://{tmp_path.name}/{written.root.name}"
    store = open_store(uri)
    files = [path for path in written.root.rglob("*") if path.is_file()]
    for path in files:
        store.put_file(path.relative_to(written.root).as_posix(), path)
    largest = max(path.stat().st_size for path in files)
    bucket = listed(uri, tmp_path / "cache", 4 * largest)
    fetch_metadata(bucket)
    root = Path(bucket.source.root)
    with reading(bucket.source):
        tally = run(root, tmp_path / "bucket", bucket=bucket.source, uri=uri, **request)
    assert tally == local
    assert tree(tmp_path / "bucket" / "datasets") == tree(tmp_path / "local" / "datasets")
    assert facts(tmp_path / "bucket", "episodes") == facts(tmp_path / "local", "episodes")
    (row,) = facts(tmp_path / "bucket", "sources")
    assert row["root"] == uri
    held = [path.stat() for path in root.rglob("*") if path.is_file()]
    assert sum(each.st_size for each in held if not is_placeholder(each)) <= 4 * largest
