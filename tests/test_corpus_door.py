"""One module changes a corpus, and one door turns what data says into a path: checked on the files themselves."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.path_rules import PathNames, changes, joins

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for room in ("ingest", "jobs", "schemas", "training")
    for path in (ROOT / room).rglob("*.py")
)
STORAGE = (
    "ingest/storage/file_system.py",
    "ingest/storage/rooted.py",
    "ingest/storage/local.py",
    "ingest/storage/unsynced.py",
)

# Who else changes files, and why that is no corpus: a file or a folder, or `file: expression` where it is a single place.
CHANGES_FILES = {
    "ingest/export/datasets/": "an export, in a folder that the user names",
    "ingest/models/wan_encoders.py: torch.save": "bytes in memory",
    "ingest/video/cut.py": "a video in a folder of an export",
    "ingest/catalog/catalog.py: pa.ipc.new_stream": "to standard output, for another process",
    "ingest/catalog/query_child.py": "the pipe to its parent, and /dev/null",
    "ingest/catalog/query_process.py: pa.ipc.new_stream": "the pipe to its parent",
    "ingest/corpus/layout.py: os.fdopen(handle": "what the locks of the writer and of a build say",
    "ingest/executors/ray_worker.py": "the watchdog of a worker, in the folder that its driver has just made",
    "ingest/export/warehouse.py": "a warehouse that the user names",
    "ingest/models/hand_landmarker_file.py": "a file that the user names",
    "ingest/raw_data/": "a cache of raw data, in a folder that the user names",
    "ingest/storage/lock_file.py": "locks, opened without following a link",
    "ingest/storage/process_folder.py: parent.mkdir": "the staging folder of a node, which the corpus of the driver may not be on",
    "ingest/verify/bucket.py": "a folder of its own, for as long as one check takes",
    "ingest/verify/peer.py": "an environment of its own",
    "ingest/verify/lerobot_reader/": "its own standard output",
    "ingest/video/encode.py": "libav writes into a staging folder that LocalStorage has just made",
    "jobs/commands/caption.py": "a folder for people that the user names",
    "jobs/cli.py: os.open(os.devnull": "/dev/null",
    "jobs/ui/output.py: os.open(os.devnull": "/dev/null",
    "jobs/demo/": "raw data and a folder of its own",
    "jobs/commands/doctor.py": "a file that the user names",
    "jobs/ui/eval_page.py": "a file that the user names",
    "jobs/commands/view.py": "a folder of its own",
    "jobs/commands/serve.py: folder.mkdir": "the state folder of the server, outside the corpus",
    "jobs/commands/query.py: pq.write_table": "a file that the user names, outside the corpus",
    "jobs/stages/report.py": "a file that the user names",
    "jobs/stages/raw_data.py": "a cache of raw data, in a folder that the user names",
    "jobs/service/": "the state folder of the server, outside the corpus",
    "jobs/rollout_video.py": "a folder of a rollout that the user names",
    "jobs/ui/train_report.py": "a run",
    "training/data/": "a cache, made aside in the folder of one user and named when it is whole",
    "training/durable.py": "a run",
    "training/evaluation/examples.py: figure.savefig": "a picture in memory",
    "training/run/": "a run",
}
# Who else makes a path of something that is no constant, and why that cannot lead out.
JOINS = {
    "ingest/corpus/commit.py: folder / video['name']": "a video that a worker of this run staged, in its staging folder",
    "ingest/corpus/dataset_info.py: corpus / key": "named in an error; read by key",
    "ingest/corpus/erasure.py: folder / name": "compared with the names that an erasure gives, just before",
    "ingest/corpus/erasure.py: f'{dataset}/{expected(each)}'": "compared with what a tombstone says, never opened",
    "ingest/corpus/latent_packs.py: corpus.root.glob(": "a pattern; what it lists is opened through `within`",
    "ingest/corpus/commit.py: self.corpus.root / path": "a number in a dataset; `write_new` walks from the root and follows no link",
    "ingest/corpus/layout.py: f'{self.root}/staging/{uid}.{work_digest}'": "the door itself; a uid and a digest of this run",
    "ingest/corpus/remote_staging.py": "keys of a bucket, which `ObjectStore` checks, and a video in the folder of the worker that has just made it",
    "ingest/corpus/snapshot_list.py: corpus / snapshot.key_of(number)": "a number",
    "ingest/pipeline/process.py: own / ": "the folder of this process; a uid and a digest of this run",
    "ingest/storage/process_folder.py: parent / ": "a random number",
    "ingest/corpus/ledger.py: folder / f'{run_id}.jsonl'": "the id of this run",
    "ingest/corpus/lerobot_meta.py: meta / name": "the six names of the format",
    "ingest/corpus/manifest_folders.py: out / version": "a digest of this process",
    "ingest/corpus/snapshot.py: corpus / key_of(number)": "named in an error; read by key",
    "ingest/export/rules/lerobot_shared_files.py: steps / self.info['fps']": "numbers: a time",
    "ingest/export/rules/lingbot_va.py: f'{folder}/{place}: another info.json": "a line for people",
    "ingest/latents/plan.py: f'{folder}/{digest[:16]}.tar'": "a digest of this process",
    "jobs/build/outputs.py: f'{spec.out}/{folder.name}'": "a folder that the user names, and a version of a manifest",
    "ingest/curation/captions/cache.py: self.folder / key[:2]": "a digest of this process",
    "ingest/curation/duplicates/array_parts.py: self._folder / f'{len(self._stored)}.bin'": "a number of this process",
    "ingest/curation/duplicates/distances.py": "numbers: the root of a line",
    "ingest/curation/manifests/action_stats_partial.py": "digests of this process; what is there is opened through `within`",
    "ingest/curation/tiers/policy.py: files('ingest.curation.tiers.policies')": "one of the names that the folder lists",
    "ingest/doctor/doctor.py: folder / f\"{camera['name']}.mp4\"": "a folder of its own; names of cameras have a grammar",
    "ingest/executors/node_proof.py": "the id that Ray gives a node, and the walk over raw data that is sampled",
    "ingest/executors/ray_worker.py: folder / f'{WATCH}{worker}'": "the id that Ray gives a worker",
    "jobs/service/saved_policies.py": "a folder of the server's operator; names of policies have a grammar without dots and slashes",
    "ingest/export/datasets/": "numbers, splits and names of features, in an export that the user names; paths in the corpus go through `CorpusLayout.path`",
    "ingest/video/join.py: folder / f'{name}-{number}.mp4'": "a folder of an export; names of features have no slash",
    "ingest/export/warehouse.py": "a warehouse that the user names, and tables of the catalog",
    "ingest/maintenance/tombstone_writer.py: folder / name": "names that it makes of numbers",
    "ingest/models/encoder_weights.py: folder / ": "a folder that the user names; names of its index are checked just before",
    "ingest/models/mano.py: mano_dir / f'MANO_{side.upper()}.pkl'": "a folder that the user names, left or right",
    "ingest/pipeline/plan.py: Path(ref.root, value)": "raw data: files that every node must see",
    "ingest/pipeline/process.py: folder / f'{camera.name}.mp4'": "names of cameras have a grammar",
    "ingest/raw_data/": "a cache of raw data; keys are checked before their tree is made",
    "ingest/storage/local.py": "the storage itself",
    "ingest/storage/rooted.py": "the walk of a LocalStorage",
    "ingest/transforms/camera_poses.py": "a folder that the user names, by the path that raw data was found at",
    "ingest/verify/lerobot_reader/": "a reader that knows nothing of eicorpus, of a folder that the user names",
    "jobs/commands/view.py": "a folder of its own",
    "jobs/rollout_video.py": "a number, and a camera's name without other characters than letters, digits, - and _",
    "training/rollout/episodes.py": "numbers, and names of cameras as above, in a folder that the user names",
    "jobs/ui/output_file.py": "a file that the user names",
    "ingest/corpus/review_journal.py: corpus.root / key": "a key that the storage listed, after it could not be read",
    "jobs/build/sources.py: folder / path": "raw data, whose digest is compared",
    "jobs/build/spec_file.py: location.parent / path": "what the user's own file names",
    "jobs/machine.py: cgroup /": "what the kernel says of this process",
    "jobs/demo/": "raw data and a folder of its own",
    "jobs/stages/raw_data.py": "a cache of raw data; the owner, name and commit of a repository",
    "jobs/service/cache_build.py": "the state folder of the server; digests and numbers of this process",
    "jobs/service/job_store.py": "the state folder of the server; numbers of this process",
    "jobs/service/keeper.py": "the state folder of the server; digests of this process",
    "jobs/service/snapshot_cache.py": "the state folder of the server; numbers of this process",
    "jobs/own_packages.py: _PLACE / name": "the five names of our packages, compared and never opened",
    "schemas/split.py: f'{ref.source}/{ref.dataset}/": "what an episode is called, no path",
    "schemas/paths.py": "the door itself; raw data, where links are followed as long as they stay inside",
    "training/data/action_build.py: folder / part_name(len(works))": "a number",
    "training/data/actions.py: (cache or default_cache(manifest.corpus)) / name": "a digest of this process",
    "training/data/actions.py: self.folder / name": "said in an error; opened through `within`",
    "training/data/block_cache.py: self.folder / name": "a digest of this process",
    "training/data/cache.py: folder / name": "said in an error; opened through `within`",
    "training/data/cache.py: folder.parent / f'.{folder.name}.lock'": "beside the folder",
    "training/data/sample_index.py": "a digest of this process, and the names of its columns",
    "training/recipe.py: resources.files('training.recipes')": "one of the names that the folder lists",
    "training/run/checkpoint.py": "a run that the user names",
    "training/run/mishaps.py: self._out / name": "two names of its own, in a run",
}


# Who else reads a file whole or by lines, and why that is no small object of a corpus.
READS_FILES = {
    "ingest/corpus/ledger.py": "a log that grows by lines, and is read so",
    "ingest/corpus/remote_staging.py": "what this worker has just staged",
    "ingest/corpus/staging.py": "files that adapter options name, and what a worker has staged",
    "ingest/curation/captions/offline_backends.py": "a file that the user names",
    "ingest/curation/manifests/action_stats_partial.py": "Parquet, which its library reads",
    "ingest/curation/tiers/policy_loader.py": "a file that the user names",
    "ingest/executors/node_proof.py": "raw data",
    "ingest/export/rules/export_files.py": "an export, which is no corpus: a folder that the user names",
    "ingest/models/encoder_weights.py": "a folder that the user names",
    "ingest/pipeline/assets.py": "files that the user names",
    "ingest/storage/local.py": "the store itself",
    "ingest/storage/object_store.py": "a file that is sent to a bucket",
    "ingest/verify/digest.py": "a list of tasks, a line at a time",
    "ingest/video/truncation.py": "a video",
    "jobs/commands/caption.py": "a file that the user names",
    "jobs/commands/rollout.py": "a file that the user names",
    "jobs/rerun_recording.py": "a video",
    "ingest/curation/reviews/files.py": "a file that the user names",
    "jobs/service/web.py": "a file of the package, or of plotly's",
    "jobs/service/media.py": "a video",
    "jobs/service/snapshot_cache.py": "the state folder of the server",
    "jobs/stages/manifest.py": "a file that the user names",
    "jobs/ui/train_report.py": "a run",
}
# test_architecture.READS_WHOLE has those of `pathlib`.
READERS = {"read_json", "read_regular", "open_regular", "lines_of_regular", "blocks_of_regular"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def path_names() -> PathNames:
    return PathNames.of(map(tree_of, FILES))


@cache
def changed() -> list[str]:
    """`file: expression` for everything that changes files by other means than a LocalStorage."""
    files = [path for path in FILES if name_of(path) not in STORAGE]
    return [f"{name_of(path)}: {each}" for path in files for each in changes(tree_of(path))]


@cache
def joined() -> list[str]:
    return [f"{name_of(p)}: {each}" for p in FILES for each in joins(tree_of(p), path_names())]


@cache
def read() -> list[str]:
    """`file: expression` for calls that read a file of ingest/ or jobs/ by its path."""
    files = [path for path in FILES if name_of(path).startswith(("ingest/", "jobs/"))]
    return [
        f"{name_of(path)}: {ast.unparse(node)}"
        for path in files
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and reader_of(node) in READERS
    ]


def reader_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)


def unlisted(lines: list[str], listed: dict[str, str]) -> list[str]:
    return [line for line in lines if not line.startswith(tuple(listed))]


def test_one_module_changes_a_corpus() -> None:
    assert unlisted(changed(), CHANGES_FILES) == [], "use LocalStorage"


def test_one_door_turns_what_data_says_into_a_path() -> None:
    assert unlisted(joined(), JOINS) == [], "use Corpus.path or within"


def test_small_objects_of_a_corpus_are_read_by_key() -> None:
    assert unlisted(read(), READS_FILES) == [], "use Store.get or get_json"


@pytest.mark.parametrize(
    ("listed", "look"),
    [(CHANGES_FILES, changed), (JOINS, joined), (READS_FILES, read)],
)
def test_what_is_listed_needs_it(listed: dict[str, str], look: Callable[[], list[str]]) -> None:
    assert [each for each in listed if not any(line.startswith(each) for line in look())] == []


def of(text: str, rule: Callable[[ast.AST], Iterator[str]]) -> list[str]:
    return list(rule(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "import shutil; shutil.rmtree(x)",
        "from shutil import rmtree; rmtree(x)",
        "from shutil import rmtree as clear; clear(x)",
        "import shutil as disk; disk.rmtree(x)",
        "import shutil; s = shutil; s.rmtree(x)",
        "import os; remove = os.remove; remove(x)",
        "import os; list(map(os.unlink, paths))",
        "import os; getattr(path, 'unlink')()",
        "from os import replace, unlink; replace(a, b)",
        "from os import replace, unlink; unlink(a)",
        "import os; os.open(x, os.O_CREAT)",
        "import os; os.open(x, os.O_RDONLY | os.O_TRUNC)",
        "import os; os.open(x, flags)",
        "import os; os.rename(a, b)",
        "import os as o; o.truncate(a, 0)",
        "path.unlink()",
        "path.rename(b)",
        "path.replace(other)",
        "path.open('wb')",
        "path.open(mode='r+')",
        "path.write_text('')",
        "path.write_bytes(b'')",
        "from pathlib import Path; Path.write_bytes(path, b'')",
        "list(map(Path.touch, paths))",
        "open(x, 'w')",
        "open(x, mode='a')",
        "open(x, mode)",
        "import io; io.open(x, 'wb')",
        "import gzip; gzip.open(x, 'wt')",
        "import numpy as np; np.save(path, x)",
        "from numpy import savez as keep; keep(path, x)",
        "import numpy as np; np.memmap(path, 'f4', 'w+')",
        "import numpy as np; np.memmap(path, 'f4')",
        "import pyarrow.parquet as pq; pq.write_table(t, path)",
        "import pyarrow as pa; pa.parquet.write_table(t, path)",
        "from pyarrow import parquet; parquet.ParquetWriter(path, schema)",
        "def f(sink):\n import pyarrow.parquet as pq\n pq.write_table(t, sink)",
        "import pyarrow as pa; pa.OSFile(path, 'wb')",
        "import pyarrow as pa; pa.ipc.new_file(path, schema)",
        "frame.write_parquet(path)",
        "frame.sink_parquet(path)",
        "frame.to_parquet(path)",
        "from safetensors.torch import save_file; save_file(t, path)",
        "from safetensors import numpy as st; st.save_file(t, path)",
        "import torch; torch.save(x, path)",
        "values.tofile(path)",
        "picture.save(path)",
        "import cv2; cv2.imwrite(path, x)",
    ],
)
def test_a_change_is_seen(text: str) -> None:
    assert of(text, changes)


@pytest.mark.parametrize(
    "text",
    [
        "disk.remove(x)",
        "self.disk.sync()",
        "disk.unlink(x)",
        "path.open('rb')",
        "frame.rename({'a': 'b'})",
        "text.replace('a', 'b')",
        "from dataclasses import replace; replace(each, a=1)",
        "values.copy()",
        "open(x)",
        "import os; os.open(x, os.O_RDONLY | os.O_CLOEXEC)",
        "import numpy as np; np.memmap(path, 'f4', 'r')",
        "sink = pa.BufferOutputStream(); pq.write_table(t, sink)",
        "import io; file = io.BytesIO(); np.save(file, x)",
        "writer.write_table(t)",
    ],
)
def test_what_changes_nothing_is_let_be(text: str) -> None:
    assert of(text, changes) == []


@pytest.mark.parametrize(
    "text",
    [
        "corpus / row['path']",
        "dataset / name",
        "corpus_root / row.path",
        "folder = corpus.root; folder / row_path",
        "here = Path(corpus); here / name",
        "def f(where: Path):\n    here = where.parent\n    return here / name",
        "def f(places: list[Path]):\n    for each in places:\n        yield each / name",
        "def f(place: Path | None):\n    if place is not None:\n        return place / name",
        "here, there = corpus, 1; here / name",
        "here = corpus; here /= name",
        "name = 'a'; name += row['path']; corpus / name",
        "[each / name for each in sorted(corpus.iterdir())]",
        "Path(work.corpus) / row['path'] / name",
        "self.corpus.root / 'a' / name",
        "self._root.rglob(pattern)",
        "corpus.glob(pattern)",
        "root / f'{x}'",
        "where / f'{x}.json'",
        "anything / row['path']",
        "p.joinpath(q)",
        "root.joinpath(*parts)",
        "f'{root}/{name}'",
        "open(f'{self.corpus.root}/{FOLDER}/x/{name}')",
        "f'see {corpus}/datasets/{name}'",
        "os.path.join(corpus, name)",
        "os.path.join(str(root), 'a', row['path'])",
        "from os.path import join; join(corpus, name)",
        "Path(root, name)",
        "Path(corpus) / name",
        "str(corpus) + '/' + name",
    ],
)
def test_a_join_with_data_is_seen(text: str) -> None:
    assert of(text, joins)


def test_what_a_class_or_a_function_says_is_a_path_is_one_everywhere() -> None:
    known = "class Work:\n    place: Path\n    def __init__(self, at: Path):\n        self.at = at\ndef open_it() -> Path: ..."
    names = PathNames.of([ast.parse(known)])
    for text in ("work.place / name", "work.at / name", "open_it() / name"):
        assert list(joins(ast.parse(text), names))


@pytest.mark.parametrize(
    "text",
    [
        "row['length'] / row['duration_s']",
        "values / names[0]",
        "corpus / 'meta'",
        "corpus.root / FOLDER",
        "corpus.glob('*.json')",
        "for name in ('a', 'b'):\n    corpus / name",
        "name = 'a' if is_new else 'b'; corpus / name",
        "corpus / f'{number:08d}.json'",
        "files('schemas').joinpath('hands.yaml')",
        "total / count",
        "def f(total: float, corpora: list[Path]):\n    return total / len(corpora)",
        "f'run `eicorpus verify {corpus}`, then {name}'",
        "f'{corpus}/{FOLDER}'",
        "f'{dataset_path}/{name}'",
        "os.path.join(corpus, 'meta')",
        "Path(corpus)",
        "str(corpus) + '.part'",
    ],
)
def test_a_join_with_a_constant_is_let_be(text: str) -> None:
    assert of(text, joins) == []
