"""The second half of an erasure: after its snapshot is published, every file that still tells of the episode goes.

The first half (ingest/maintenance/erase.py) leaves `staging/erase.<run>/`: what shall lie in the erased places, and `intent.json`, which says
what to do with it. Where each file goes is said by the tombstones alone: a folder in staging is no authority over the rest of a corpus. The snapshot is the commit: a folder whose run has no tombstone was never committed and is swept; one whose run has is
done, from the start and as often as it takes. The intent goes last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest.corpus.layout import CorpusLayout, data_file, video_file
from ingest.corpus.redaction import redact_manifests
from ingest.corpus.residual_files import derived, residual_files, scrub_logs
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot_list import snapshot_path
from ingest.corpus.tombstones import Row, places, tombstones
from ingest.storage.local import LocalStorage, within
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits, read_json
from schemas.manifest import ERASED_FILE
from schemas.manifest import FOLDER as MANIFESTS
from schemas.regular_file import read_regular

PREFIX = "erase."
INTENT = "intent.json"
# A million episodes with three cameras each, and the texts of all older snapshots.
INTENT_LIMITS = JsonLimits(max_bytes=1 << 30, max_elements=1 << 22)
_STAGED = re.compile(
    r"[0-9]{6}(\.[0-9]+\.mp4|\.parquet)"
)  # as ingest/maintenance/placeholder.py names them


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is left to do once the snapshot is there."""

    run_id: str
    files: Mapping[
        str, str
    ]  # name in the folder -> path in the corpus, which a tombstone of the run has
    history: Mapping[int, str]  # older snapshot -> its new text

    def to_json(self) -> str:
        """
        Raises:
            ConfigError: it is more than `read` takes.
        """
        text = json.dumps(asdict(self))
        num_elements = 5 + len(self.files) + len(self.history)
        if len(text) > INTENT_LIMITS.max_bytes or num_elements > INTENT_LIMITS.max_elements:
            problem = f"{len(self.files)} files and {len(self.history)} older snapshots at once"
            remedy = "run `eicorpus gc` first, which removes older snapshots, or forget fewer episodes at once"
            raise ConfigError(f"{problem} are too many; {remedy}", where=self.run_id)
        return text

    @staticmethod
    def read(folder: Path) -> Intent | None:
        """None when the run that was to write it stopped before.

        Raises:
            ConfigError: it is not what `forget` writes.
        """
        path = within(folder, INTENT)
        if not path.exists():
            return None
        try:
            raw = read_json(path, limits=INTENT_LIMITS)
            history = {int(number): str(text) for number, text in raw["history"].items()}
            files = {str(name): str(target) for name, target in raw["files"].items()}
            intent = Intent(run_id=str(raw["run_id"]), files=files, history=history)
        except (ValueError, KeyError, TypeError, AttributeError, SourceError) as error:
            raise _not_ours(path, f"cannot be read ({error})") from error
        if folder.name != f"{PREFIX}{intent.run_id}":
            raise _not_ours(path, f"names the run {intent.run_id!r}")
        return intent


def folder_of(corpus: CorpusLayout, run_id: str) -> Path:
    return corpus.path(f"staging/{PREFIX}{run_id}")


def unfinished(corpus: CorpusLayout, current: Snapshot) -> list[Path]:
    """Folders of erasures that are committed and not done."""
    runs: set[str] | None = None
    folders = []
    for folder in sorted(corpus.staging.glob(f"{PREFIX}*")):
        intent = Intent.read(folder)
        if intent is not None and runs is None:
            runs = {row["run_id"] for row in tombstones(corpus.root, current)}
        if intent is not None and runs is not None and intent.run_id in runs:
            folders.append(folder)
    return folders


def finish_erasures(corpus: CorpusLayout, disk: LocalStorage, current: Snapshot) -> list[str]:
    """Do what stopped erasures left undone, and sweep those that were never committed; a line for each."""
    folders = sorted(corpus.staging.glob(f"{PREFIX}*"))
    if not folders:
        return []
    committed = unfinished(corpus, current)
    done = []
    for folder in folders:
        if folder in committed:
            intent = Intent.read(folder)
            assert intent is not None  # `unfinished` has read it
            _finish(corpus, disk, current, folder, intent)
            done.append(f"erased the files of {folder.name}")
        else:
            done.append(f"removed staging of {folder.name}, which was not committed")
        disk.remove_tree(folder)
    return done


def _finish(
    corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, folder: Path, intent: Intent
) -> None:
    buried = tombstones(corpus.root, current)
    rows = [row for row in buried if row["run_id"] == intent.run_id]
    uids = {row["uid"] for row in rows}
    places_of_run = {each["path"] for row in rows for each in _files_there(row)}
    for name, path in intent.files.items():
        if not _STAGED.fullmatch(name) or path not in places_of_run:
            raise _not_ours(folder / INTENT, f"places {name!r} at {path!r}")
        disk.hard_link_or_copy(folder / name, corpus.path(path))
    for number, text in intent.history.items():
        if (file := snapshot_path(corpus.root, number)).is_file():  # else it was collected
            disk.write(file, text.encode(), is_durable=True)
    for residual in residual_files(corpus, rows):
        disk.remove(residual)
    scrub_logs(corpus, disk, uids)
    for staged in sorted(corpus.staging.iterdir()):
        if staged.name.partition(".")[0] in uids:
            disk.remove_tree(staged)
    for left in derived(corpus):
        disk.remove_tree(left)
    redact_published_manifests(corpus, disk, buried)
    disk.sync()
    # Before the rest of its folder: without it the folder is rubbish, with it all of the folder must be there.
    disk.remove(folder / INTENT)


def _files_there(tombstone: Row) -> list[dict[str, str]]:
    """The files of a tombstone that lie where an episode of its number has them; others are none of an erasure."""
    dataset, index = tombstone["dataset_path"], tombstone["episode_index"]
    if dataset is None:
        return []
    expected = {
        "data": lambda each: data_file(index),
        "video": lambda each: video_file(index, f"observation.images.{each['camera']}"),
    }
    return [
        each
        for each in tombstone["files"]
        if each["kind"] in expected and each["path"] == f"{dataset}/{expected[each['kind']](each)}"
    ]


def _not_ours(path: Path, path_text: str) -> ConfigError:
    expected = "expected what `eicorpus forget` leaves: files for the places of its own tombstones"
    return ConfigError(
        f"{path_text}; {expected}; nothing was placed; remove the folder if you trust the rest of this corpus",
        where=str(path),
    )


def redact_published_manifests(
    corpus: CorpusLayout, disk: LocalStorage, buried: Sequence[Row]
) -> None:
    """Readers of manifests know nothing of the catalog: list the places for them, and take their rows out.

    Of every erasure there was: a manifest may have been published from an older snapshot while one was under way.
    """
    pairs = [(row["dataset_path"], row["episode_index"]) for row in places(buried)]
    path = corpus.root / MANIFESTS / ERASED_FILE
    listed = [{"dataset_path": of, "episode_index": index} for of, index in pairs]
    content = (json.dumps({"erased": listed}, indent=1) + "\n").encode()
    if pairs and not _holds(path, content):
        disk.make_dir(path.parent)
        disk.write(path, content, is_durable=True)
    redact_manifests(corpus, disk, pairs)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path, max_bytes=len(content)) == content
    except SourceError:  # absent, longer, or no file: written anew
        return False
