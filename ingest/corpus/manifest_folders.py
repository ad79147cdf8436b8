"""Published manifests: `CORPUS/manifests/<name>/` or, of a corpus spec, `CORPUS/manifests/<name>/<version>/`, written once, and the removal
of erased episodes from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.tombstones import ERASED_TASK
from ingest.storage.local import LocalStorage, within
from schemas.errors import ConfigError
from schemas.manifest import (
    FACTS_FILE,
    FOLDER,
    NEWEST_FILE,
    REDACTION_FILE,
    ROWS_FILE,
    VERSION_NAME,
    ErasedRows,
    ManifestFacts,
    Redaction,
    load_facts,
    load_redaction,
    load_rows,
    newest_version,
    page_of,
    rows_sha256,
)
from schemas.parquet_file import read_table

_NAME = re.compile(rf"([a-z0-9][a-z0-9._-]{{0,63}})(/{VERSION_NAME.pattern})?")
ROW_GROUP = 128 * 1024
# Columns whose values come again and again; a dictionary of digests would only cost time.
_REPEATED = ["source", "embodiment", "dataset_path", "tier", "split", "text", "licence_class"]
_REPEATED += ["tasks.list.element", "reasons.list.element"]
_REPEATED += ["latents.list.element.camera", "latents.list.element.encoder_id"]


def manifest_folder(corpus: Path, name: str) -> Path:
    """Where the manifest `name`, or the version NAME/VERSION of one, is or would be.

    Raises:
        ConfigError: no name for a folder.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"manifest name {name!r}: expected lower-case letters, digits, dots, dashes and underscores, with a letter or digit first"
        )
    return within(corpus, f"{FOLDER}/{name}")


def open_manifest_folder(corpus: Path, name: str) -> Path:
    """Where the manifest `name` is read from: the newest version of one that has versions.

    Raises:
        ConfigError: no name for a folder, or no newest version.
    """
    return newest_version(manifest_folder(corpus, name))


def version_and_folder(corpus: Path, name: str, out: Path) -> tuple[str, Path]:
    """NAME/VERSION of the newest version of a manifest, and the folder below `out` for what is made of it.

    Raises:
        ConfigError: no name for a folder, or it was never built.
    """
    version = open_manifest_folder(corpus, name).name
    if not VERSION_NAME.fullmatch(version):
        raise ConfigError(f"manifest {name} has no versions", remedy="build it from the spec")
    return f"{name}/{version}", out / version


def manifest_names(corpus: Path) -> list[str]:
    """Every published manifest, and NAME/VERSION of every version."""
    folder = corpus / FOLDER
    each = (*folder.glob(f"[a-z0-9]*/{FACTS_FILE}"), *folder.glob(f"[a-z0-9]*/*/{FACTS_FILE}"))
    names = (path.parent.relative_to(folder).as_posix() for path in each)
    return sorted(name for name in names if _NAME.fullmatch(name))


def version_of(facts: ManifestFacts, *, has_statistics: bool) -> str:
    """The name of a version: the digest of its rows and of what they were chosen by, which no run or snapshot number enters.

    The same content has the same version in every corpus, whatever stopped its builds.
    """
    content = {
        "rows": facts.rows_sha256,
        "where": facts.where,
        "text": facts.text_policy,
        "policy": [facts.policy.name, facts.policy.digest],
        "split": facts.split.model_dump(mode="json"),
        "mixture": facts.mixture.digest,
        "statistics": has_statistics,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def publish_version(corpus: Path, facts: ManifestFacts, rows: pa.Table, disk: LocalStorage) -> str:
    """Write a version whole or not at all, unless it is there, and make it the newest. Its name.

    Raises:
        ConfigError: a manifest without versions has this name.
    """
    folder = manifest_folder(corpus, facts.name)
    version = version_of(facts, has_statistics=facts.statistics is not None)
    refuse_unversioned(corpus, facts.name)
    disk.make_dir(folder)
    files = {ROWS_FILE: rows_bytes(rows), FACTS_FILE: page_bytes(facts)}
    disk.put_dir_if_absent(manifest_folder(corpus, f"{facts.name}/{version}"), files)
    make_newest(corpus, facts.name, version, disk)
    return version


def refuse_unversioned(corpus: Path, name: str) -> None:
    """
    Raises:
        ConfigError: a manifest without versions has this name.
    """
    folder = manifest_folder(corpus, name)
    if (folder / FACTS_FILE).exists():
        problem = f"`eicorpus manifest build` published a manifest called {name}"
        raise ConfigError(
            f"{problem}, which has no versions: choose another name", where=str(folder)
        )


def make_newest(corpus: Path, name: str, version: str, disk: LocalStorage) -> None:
    """The version that the name alone opens from now on; nothing is written where it is that already."""
    try:
        is_newest = newest_version(manifest_folder(corpus, name)).name == version
    except ConfigError:  # damaged: it is written again
        is_newest = False
    if not is_newest:
        text = json.dumps({"version": version}) + "\n"
        disk.put(f"{FOLDER}/{name}/{NEWEST_FILE}", text.encode(), is_durable=True)
        disk.sync()


def existing(corpus: Path, facts: ManifestFacts) -> ManifestFacts | None:
    """The manifest of this name if it was published before, statistics apart the same as `facts`; None for a free name.

    Raises:
        ConfigError: the name belongs to another manifest; the message says what differs.
    """
    folder = manifest_folder(corpus, facts.name)
    if not folder.exists():
        return None
    if (folder / NEWEST_FILE).exists():
        problem = "`eicorpus build` publishes versions of this manifest"
        raise ConfigError(f"{problem}: choose another name", where=str(folder))
    existing_facts = load_facts(folder)
    ours, theirs = _request_of(facts), _request_of(existing_facts)
    if ours == theirs:
        return existing_facts
    names = [name for name in ours if ours[name] != theirs[name]]
    raise ConfigError(
        f"a manifest of this name exists and differs in {', '.join(names)}; manifests are never overwritten",
        remedy="choose another name",
        where=str(folder),
    )


def _request_of(facts: ManifestFacts) -> dict[str, Any]:
    """What makes a manifest another one: policy and mixture by their digests, for which a comment is no content."""
    comments = {"policy": {"text"}, "mixture": {"text"}}
    return facts.model_dump(mode="json", exclude={"statistics": True, **comments})


def publish(corpus: Path, facts: ManifestFacts, rows: pa.Table, disk: LocalStorage) -> Path:
    """Write a manifest whole or not at all.

    Raises:
        ConfigError: someone published another one of this name in the meantime.
    """
    folder = manifest_folder(corpus, facts.name)
    disk.make_dir(folder.parent)
    files = {ROWS_FILE: rows_bytes(rows), FACTS_FILE: page_bytes(facts)}
    if not disk.put_dir_if_absent(folder, files):
        existing(corpus, facts)
    return folder


def rows_bytes(rows: pa.Table) -> bytes:
    """`manifest.parquet`."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=ROW_GROUP, use_dictionary=_REPEATED
    )
    return bytes(sink.getvalue().to_pybytes())


def page_bytes(facts: ManifestFacts) -> bytes:
    """`manifest.json`."""
    page = json.dumps(page_of(facts), indent=1, ensure_ascii=False, allow_nan=False)
    return f"{page}\n".encode()


Place = tuple[str, int]  # dataset path, episode_index


def naming(corpus: Path, uids: pa.Array) -> tuple[str, ...]:
    """Manifests with a row of one of the uids.

    Raises:
        ConfigError: the rows of one cannot be read, or the page of one that names them is not as it was published.
    """
    return tuple(name for name in manifest_names(corpus) if _names_any(corpus, name, uids))


def _names_any(corpus: Path, name: str, uids: pa.Array) -> bool:
    folder = within(corpus, f"{FOLDER}/{name}")
    named = _columns(folder, ["uid"])["uid"]
    is_named = bool(pc.any(pc.is_in(named, value_set=uids)).as_py())
    if is_named:
        load_facts(folder)  # a changed page must not get a digest that fits it
    return is_named


def _columns(folder: Path, columns: Sequence[str]) -> pa.Table:
    return read_table(folder / ROWS_FILE, columns, remedy="build it again, or remove its folder")


def redact_manifests(
    corpus: CorpusLayout, disk: LocalStorage, places: Iterable[Place]
) -> list[str]:
    """Take the rows of these places out of every manifest. The names of those that had any.

    Raises:
        ConfigError: a manifest cannot be read; run again after it is repaired or removed.
    """
    erased = set(places)
    done = []
    for name in manifest_names(corpus.root) if erased else ():
        folder = corpus.path(f"{FOLDER}/{name}")
        columns = _columns(folder, ["dataset_path", "episode_index"])
        pairs = zip(*(columns[column].to_pylist() for column in columns.column_names), strict=True)
        if counted := Counter(pair for pair in pairs if pair in erased):
            _redact(corpus.root, name, disk, counted)
            done.append(name)
    return done


def _redact(root: Path, name: str, disk: LocalStorage, counted: Counter[Place]) -> None:
    store, key = disk.at(root), f"{FOLDER}/{name}"
    folder = store.local_path(key)
    rows, facts = load_rows(folder), load_facts(folder)
    pairs = zip(rows["dataset_path"].to_pylist(), rows["episode_index"].to_pylist(), strict=True)
    is_left = pa.array([pair not in counted for pair in pairs], pa.bool_())
    left = rows.filter(is_left)
    redaction = _recorded(load_redaction(folder), counted, rows_sha256(left))
    page = f"{redaction.model_dump_json(indent=1)}\n".encode()
    store.put(f"{key}/{REDACTION_FILE}", page, is_durable=True)
    lost = set(rows["text"].to_pylist()) - set(left["text"].to_pylist())
    if (without := _without_texts(facts, lost)) != facts:
        store.put(f"{key}/{FACTS_FILE}", page_bytes(without), is_durable=True)
    disk.sync()  # once the rows have gone, nobody looks at the two above again
    store.put(f"{key}/{ROWS_FILE}", rows_bytes(left), is_durable=True)


def _recorded(before: Redaction, counted: Counter[Place], digest: str) -> Redaction:
    known = {(each.dataset_path, each.episode_index): each.num_rows for each in before.erased}
    erased = sorted({**known, **counted}.items())
    return Redaction(
        rows_sha256=tuple(dict.fromkeys([*before.rows_sha256, digest])),
        erased=tuple(
            ErasedRows(dataset_path=of, episode_index=index, num_rows=num)
            for (of, index), num in erased
        ),
    )


def _without_texts(facts: ManifestFacts, lost: set[str]) -> ManifestFacts:
    """Groups of a mixture may be named by the task text."""
    groups = tuple(
        each.model_copy(update={"group": {**each.group, "text": ERASED_TASK}})
        if each.group.get("text") in lost
        else each
        for each in facts.mixture.groups
    )
    return facts.model_copy(update={"mixture": facts.mixture.model_copy(update={"groups": groups})})
