"""The second half of an erasure. After its snapshot is published, every file that still holds data of the episode is deleted or rewritten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.latent_packs import erase_members
from ingest.corpus.layout import REPORT, CorpusLayout, data_file, video_file
from ingest.corpus.ledger import lines_of_log
from ingest.corpus.manifest_folders import redact_manifests
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import places, tombstones
from ingest.storage.file_tree import paths_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage, OutsideCorpus
from ingest.storage.store import Store, get_json
from schemas.committed_rows import ErasedFileValue, TombstoneRow
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.manifest import ERASED_FILE
from schemas.manifest import FOLDER as MANIFESTS

ANSWER_LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=10_000)  # of a kept answer


def residual_files(corpus: CorpusLayout, erased: Iterable[TombstoneRow]) -> Iterator[Path]:
    """Files that may show these episodes: latents, cached answers of captioning, the report, partial files.

    Args:
        erased: tombstones.
    """
    rows = list(erased)
    yield from _latents(corpus, rows)
    yield from _captions(corpus, {row.uid for row in rows})
    if (corpus.root / REPORT).is_file():
        yield corpus.root / REPORT
    manifests = corpus.root / MANIFESTS
    for folder in (corpus.root / "cache", corpus.ledger, corpus.quarantine, manifests):
        yield from sorted(p for p in paths_below(folder, f".*{HALF_SUFFIX}") if p.is_file())


def derived(corpus: CorpusLayout) -> list[Path]:
    """Folders that hold something of many episodes and are made again when asked for: partial statistics, half a manifest."""
    manifests = corpus.root / MANIFESTS
    named = (f".*{HALF_SUFFIX}", f"[a-z0-9]*/.*{HALF_SUFFIX}")  # of a manifest, of a version of one
    halves = sorted(path for each in named for path in manifests.glob(each) if path.is_dir())
    return [manifests / "_cache", *halves]


def _latents(corpus: CorpusLayout, erased: Iterable[TombstoneRow]) -> Iterator[Path]:
    """By the number of the place, whatever the catalog knew of them."""
    for row in erased:
        if row.dataset_path is not None:
            latents = corpus.path(f"{row.dataset_path}/latents")
            yield from sorted(paths_below(latents, f"episode_{row.episode_index:06d}.*"))


def _captions(corpus: CorpusLayout, uids: set[str]) -> Iterator[Path]:
    """Kept answers about these episodes. A damaged one counts as no answer, and goes too."""
    storage = LocalStorage(corpus.root)
    for path in sorted((corpus.root / "cache" / "captions").glob("*/*.json")):
        try:
            kept = storage.read(path, most=ANSWER_LIMITS.max_bytes)
            about = parse_json(kept, limits=ANSWER_LIMITS)["uid"]
        except (OutsideCorpus, ValueError, KeyError, TypeError):
            yield path
            continue
        if about in uids:
            yield path


def scrub_logs(corpus: CorpusLayout, disk: LocalStorage, uids: set[str]) -> None:
    """The plain lists of past runs, without the lines of these episodes.

    Raises:
        ConfigError: one of them is larger than any run writes.
    """
    names = {uid.encode() for uid in uids}
    for path in sorted([*corpus.ledger.glob("*.jsonl"), *corpus.quarantine.glob("*.jsonl")]):
        if any(_uid_in(line) in names for line in lines_of_log(path)):
            with disk.atomic_writer(path, is_durable=True) as file:
                file.writelines(line for line in lines_of_log(path) if _uid_in(line) not in names)


def _uid_in(line: bytes) -> bytes:
    """As bytes: a line that a disk or a stranger damaged is no text, and names no episode."""
    return line.partition(b'"uid": "')[2][:36]


PREFIX = "erase."
INTENT = "intent.json"
# A million episodes with three cameras each, and the texts of all older snapshots.
INTENT_LIMITS = JsonLimits(max_bytes=1 << 30, max_elements=1 << 22)
_STAGED = re.compile(
    r"[0-9]{6}(\.[0-9]+\.mp4|\.parquet)"
)  # as ingest/maintenance/tombstone_writer.py names them


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
            problem = f"{len(self.files)} files and {len(self.history)} older snapshots in one run"
            remedy = "run `eicorpus gc` first to delete older snapshots, or forget fewer episodes per run"
            raise ConfigError(
                f"{problem} exceed the limit of one run", remedy=remedy, where=self.run_id
            )
        return text

    @staticmethod
    def read(corpus: CorpusLayout, folder: Path) -> Intent | None:
        """None when the run that was to write it stopped before.

        Raises:
            ConfigError: it is not what `forget` writes.
        """
        path, store = folder / INTENT, LocalStorage(corpus.root)
        key = path.relative_to(corpus.root).as_posix()
        if not store.local_path(key).exists():
            return None
        try:
            raw = get_json(store, key, limits=INTENT_LIMITS)
            history = {int(number): str(text) for number, text in raw["history"].items()}
            files = {str(name): str(target) for name, target in raw["files"].items()}
            intent = Intent(run_id=str(raw["run_id"]), files=files, history=history)
        except (ValueError, KeyError, TypeError, AttributeError, SourceError) as error:
            raise _not_ours(path, f"cannot be read ({error})") from error
        if folder.name != f"{PREFIX}{intent.run_id}":
            raise _not_ours(path, f"is the record of run {intent.run_id!r}")
        return intent


def folder_of(corpus: CorpusLayout, run_id: str) -> Path:
    return corpus.path(f"staging/{PREFIX}{run_id}")


def unfinished(corpus: CorpusLayout, current: Snapshot) -> list[Path]:
    """Folders of erasures that are committed and not done."""
    runs: set[str] | None = None
    folders = []
    for folder in sorted(corpus.staging.glob(f"{PREFIX}*")):
        intent = Intent.read(corpus, folder)
        if intent is not None and runs is None:
            runs = {row.run_id for row in tombstones(corpus.root, current)}
        if intent is not None and runs is not None and intent.run_id in runs:
            folders.append(folder)
    return folders


def finish_erasures(corpus: CorpusLayout, disk: LocalStorage, current: Snapshot) -> list[str]:
    """Do what stopped erasures left undone, and sweep those that were never committed. A line for each."""
    folders = sorted(corpus.staging.glob(f"{PREFIX}*"))
    if not folders:
        return []
    committed = unfinished(corpus, current)
    done = []
    for folder in folders:
        if folder in committed:
            intent = Intent.read(corpus, folder)
            assert intent is not None  # `unfinished` has read it
            _finish(corpus, disk, current, folder, intent)
            done.append(f"finished the erasure of run {folder.name}")
        else:
            done.append(f"removed the staging folder of run {folder.name}, which was not committed")
        disk.remove_tree(folder)
    return done


def _finish(
    corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, folder: Path, intent: Intent
) -> None:
    buried = tombstones(corpus.root, current)
    rows = [row for row in buried if row.run_id == intent.run_id]
    uids = {row.uid for row in rows}
    places_of_run = {each["path"] for row in rows for each in _existing_files(row)}
    for name, path in intent.files.items():
        if not _STAGED.fullmatch(name) or path not in places_of_run:
            raise _not_ours(folder / INTENT, f"the placeholder {name!r} belongs to {path!r}")
        disk.hard_link_or_copy(folder / name, corpus.path(path))
    store, known = disk.at(corpus.root), snapshot.numbers(corpus.root)
    for number, text in intent.history.items():
        if number in known:  # else it was collected
            store.put(snapshot.key_of(number), text.encode(), is_durable=True)
    for residual in residual_files(corpus, rows):
        disk.remove(residual)
    erase_members(corpus, disk, rows)
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


def erase_copies(corpus: CorpusLayout, disk: LocalStorage, buried: Sequence[TombstoneRow]) -> None:
    """Remove what a working copy has of episodes that were erased in the bucket: all copies of their files, and what was derived from them.

    Doing it again changes nothing. Snapshots and catalog files are the caller's.
    """
    for row in buried:
        for each in _existing_files(row):
            disk.remove(corpus.path(each["path"]))  # the placeholder file is fetched later
    for dataset_path in {row.dataset_path for row in buried if row.dataset_path}:
        disk.remove_tree(corpus.path(f"{dataset_path}/meta"))  # made from the catalog when needed
    uids = {row.uid for row in buried}
    for residual in residual_files(corpus, buried):
        disk.remove(residual)
    erase_members(corpus, disk, buried)
    scrub_logs(corpus, disk, uids)
    staged = sorted(corpus.staging.iterdir()) if corpus.staging.is_dir() else []
    for folder in staged:
        if folder.name.partition(".")[0] in uids:
            disk.remove_tree(folder)
    for left in derived(corpus):
        disk.remove_tree(left)
    redact_published_manifests(corpus, disk, buried)


def files_in_places(rows: Iterable[TombstoneRow]) -> set[str]:
    """Paths of the files that lie in the places of erased episodes."""
    return {each["path"] for row in rows for each in _existing_files(row)}


def _existing_files(tombstone: TombstoneRow) -> list[ErasedFileValue]:
    """The files of a tombstone that lie where an episode of its number has them. Others are none of an erasure."""
    dataset, index = tombstone.dataset_path, tombstone.episode_index
    if dataset is None or index is None:
        return []

    def expected(each: ErasedFileValue) -> str:
        if each["kind"] == "data":
            return data_file(index)
        return video_file(index, f"observation.images.{each['camera']}")

    files = [each for each in tombstone.files if each["kind"] in ("data", "video")]
    return [each for each in files if each["path"] == f"{dataset}/{expected(each)}"]


def _not_ours(path: Path, path_text: str) -> ConfigError:
    expected = "expected only placeholder files of its own tombstones"
    return ConfigError(
        f"{path_text}; {expected}; nothing was changed",
        remedy="remove the folder if you trust the rest of this corpus",
        where=str(path),
    )


def redact_published_manifests(
    corpus: CorpusLayout, disk: LocalStorage, buried: Sequence[TombstoneRow]
) -> None:
    """Readers of manifests know nothing of the catalog: list the places for them, and take their rows out.

    Of every erasure there was: a manifest may have been published from an older snapshot while one was under way.
    """
    pairs = [(place.dataset_path, place.episode_index) for place in places(buried)]
    key, store = f"{MANIFESTS}/{ERASED_FILE}", disk.at(corpus.root)
    listed = [{"dataset_path": of, "episode_index": index} for of, index in pairs]
    content = (json.dumps({"erased": listed}, indent=1) + "\n").encode()
    if pairs and not _holds(store, key, content):
        store.put(key, content, is_durable=True)
    redact_manifests(corpus, disk, pairs)


def _holds(store: Store, key: str, content: bytes) -> bool:
    try:
        return store.get(key, max_bytes=len(content)) == content
    except SourceError:  # absent, longer, or no file: written anew
        return False
