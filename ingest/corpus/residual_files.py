"""Files outside the catalog that tell of an erased episode. docs/how-to/erase.md lists every folder of a corpus, and who empties it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ingest.corpus.layout import REPORT, CorpusLayout
from ingest.corpus.ledger import lines_of_log
from ingest.corpus.tombstones import Row
from ingest.storage.file_tree import paths_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage, OutsideCorpus
from schemas.json_text import JsonLimits, parse_json
from schemas.manifest import FOLDER as MANIFESTS

ANSWER_LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=10_000)  # of a kept answer


def residual_files(corpus: CorpusLayout, erased: Iterable[Row]) -> Iterator[Path]:
    """Files that may show these episodes: latents, cached answers of captioning, the report, partial files.

    Args:
        erased: tombstones.
    """
    rows = list(erased)
    yield from _latents(corpus, rows)
    yield from _captions(corpus, {row["uid"] for row in rows})
    if (corpus.root / REPORT).is_file():
        yield corpus.root / REPORT
    manifests = corpus.root / MANIFESTS
    for folder in (corpus.root / "cache", corpus.ledger, corpus.quarantine, manifests):
        yield from sorted(p for p in paths_below(folder, f".*{HALF_SUFFIX}") if p.is_file())


def derived(corpus: CorpusLayout) -> list[Path]:
    """Folders that hold something of many episodes and are made again when asked for: partial statistics, half a manifest."""
    manifests = corpus.root / MANIFESTS
    halves = sorted(path for path in manifests.glob(f".*{HALF_SUFFIX}") if path.is_dir())
    return [manifests / "_cache", *halves]


def _latents(corpus: CorpusLayout, erased: Iterable[Row]) -> Iterator[Path]:
    """By the number of the place, whatever the catalog knew of them."""
    for row in erased:
        if row["dataset_path"] is not None:
            latents = corpus.path(f"{row['dataset_path']}/latents")
            yield from sorted(paths_below(latents, f"episode_{row['episode_index']:06d}.*"))


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
