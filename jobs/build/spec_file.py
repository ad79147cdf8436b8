"""Reads a corpus spec. Every mistake is reported with file, line and column, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adapters.registry import adapter_for, resolved
from ingest.curation.manifests.mixture_text import load_mixture
from ingest.curation.measurements.registry import select_measures
from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.policy_loader import Key, PolicyText, read_policy_text
from ingest.export.format_names import ExportFormat
from ingest.models.encoders import encoder_spec
from ingest.storage.store_uri import OBJECT_SCHEMES, object_store_uri, scheme_of
from jobs.build.spec import ExportSpec, Spec
from jobs.build.targets import key_of, ordered, section_of
from jobs.build.where_check import EPISODES, SEGMENTS, check_where
from jobs.stages.request_checks import refuse_nesting, shares_from
from jobs.ui.options import cache_folder, uri_of
from schemas.errors import ConfigError
from schemas.invalid import did_you_mean, problem
from schemas.paths import check_local

MAX_PROBLEMS = 20  # in one message
# Keys that are paths, by section; those of `sources` are looked at with its adapter.
_PATHS = {
    "measures": ("hand_landmarker",),
    "captions": ("replay_file",),
    "latents": ("weights",),
    "text_features": ("vlm",),
    "manifests": ("mixture_file",),
    "exports": ("weights",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecFile:
    """A spec that can be built, as far as its file says. `needs`: target -> what is built before it, in order."""

    location: Path
    text: PolicyText
    spec: Spec
    needs: dict[str, tuple[str, ...]]

    @property
    def corpus(self) -> Path:
        """The folder of the corpus; of one in a bucket, that of its working copy."""
        return _corpus_folder(self.location, self.spec.corpus)

    def at(self, path: str) -> Path:
        """A path of the spec, from its folder."""
        return _from_folder_of(self.location, path)

    def raw_place(self, path: str) -> str:
        """Raw data of the spec: a URI, or a path from its folder."""
        return path if scheme_of(path) else str(self.at(path))

    def policy(self, name: str) -> str:
        """A policy by name, or the path of its file."""
        return str(self.at(name)) if name.endswith((".yaml", ".yml")) else name

    def place(self, target: str, *way: str | int) -> str:
        """`file:line:column` of a target, or of a key of it."""
        return self.text.place((*key_of(target), *way))


def read_corpus(path: Path) -> Path:
    """The folder of the corpus that a spec names; of one in a bucket, that of its working copy. Raises as `corpus_named`."""
    return _corpus_folder(path.absolute(), corpus_named(path))


def corpus_named(path: Path) -> str:
    """The corpus that a spec names, as it does. Nothing else of the file is looked at: raw data may be on another machine.

    Raises:
        ConfigError: no such file, no YAML, or no mapping with such a key.
    """
    text = read_policy_text(path)
    try:
        place = _CorpusPlace.model_validate(text.data if text.data is not None else {})
    except ValidationError as error:
        raise _all([(tuple(e["loc"]), problem(e)) for e in error.errors()], text) from error
    return place.corpus


def _corpus_folder(location: Path, named: str) -> Path:
    if scheme_of(named) not in OBJECT_SCHEMES:
        return _from_folder_of(location, named)
    from jobs.stages.bucket_corpus import folder_of  # not for local corpora

    return folder_of(uri_of(named), cache_folder())


def _from_folder_of(location: Path, path: str) -> Path:
    return (location.parent / path).absolute()


class _CorpusPlace(BaseModel):
    sources: object  # else it is another kind of YAML file
    corpus: str = Spec.model_fields["corpus"].default


def read_spec(path: Path) -> SpecFile:
    """
    Raises:
        ConfigError: no such file, no YAML, an unknown key or target, a missing path, a cycle: with line and column.
    """
    file = read_spec_alone(path)
    if problems := list(_problems(file)):
        raise _all(problems, file.text)
    return file


def read_spec_alone(path: Path) -> SpecFile:
    """A spec whose raw data and models need not be on this machine.

    Raises:
        ConfigError: as `read_spec`, but for missing paths and names that nothing has.
    """
    text = read_policy_text(path)
    try:
        spec = Spec.model_validate(text.data if text.data is not None else {})
    except ValidationError as error:
        raise _all([(tuple(e["loc"]), problem(e, Spec)) for e in error.errors()], text) from error
    needs = ordered(spec, text)
    return SpecFile(location=path.absolute(), text=text, spec=spec, needs=needs)


def _all(problems: list[tuple[Key, str]], text: PolicyText) -> ConfigError:
    lines = [f"{text.place(way)}: {message} ({_dotted(way)})" for way, message in problems]
    more = len(lines) - MAX_PROBLEMS
    rest = [f"and {more} more"] if more > 0 else []
    return ConfigError("\n".join([*lines[:MAX_PROBLEMS], *rest]))


def _dotted(way: Key) -> str:
    return ".".join(map(str, way)) or "the whole"


def _problems(file: SpecFile) -> Iterator[tuple[Key, str]]:
    """What pydantic cannot see: paths that are not there, names that nothing has, and sources that are the same."""
    if file.corpus.exists() and not file.corpus.is_dir():
        yield ("corpus",), f"{file.spec.corpus} is no folder"
    yield from _repeated(file)
    for target, part in file.spec.parts().items():
        way, section = key_of(target), section_of(target)
        if section == "sources":
            yield from _source_problems(file, target)
        for key in _PATHS.get(section, ()):
            value = getattr(part, key)
            if value is not None and (missing := _missing(file, value)):
                yield (*way, key), missing
        yield from _named(file, target)
    yield from _outputs(file)


def _repeated(file: SpecFile) -> Iterator[tuple[Key, str]]:
    """Sources that would ingest the same episodes under two names."""
    seen: dict[str, str] = {}
    for name, source in file.spec.sources.items():
        folder = file.raw_place(source.path)
        folder = folder if scheme_of(folder) else str(Path(folder).resolve())
        same = source.model_copy(update={"path": folder}).model_dump_json()
        if (first := seen.setdefault(same, name)) != name:
            yield ("sources", name), f"is sources.{first} once more"


def _missing(file: SpecFile, value: str) -> str:
    try:
        check_local(Path(value), value)
    except ConfigError as error:
        return error.message
    return "" if file.at(value).exists() else f"{value}: no such file or folder"


def _source_problems(file: SpecFile, target: str) -> Iterator[tuple[Key, str]]:
    way, source = key_of(target), file.spec.sources[target.partition(".")[2]]
    try:
        adapter = adapter_for(resolved(source.adapter, file.location.parent))
    except ConfigError as error:
        yield (*way, "adapter"), str(error)
        return
    try:
        if scheme_of(source.path) in OBJECT_SCHEMES:
            object_store_uri(source.path)
        elif scheme_of(source.path) != "hf":
            if missing := _missing(file, source.path):
                yield (*way, "path"), missing
                return
            refuse_nesting(file.at(source.path), file.corpus)
    except ConfigError as error:
        yield (*way, "path"), error.message
    for key in sorted(set(getattr(adapter, "path_options", ())) & source.options.keys()):
        if missing := _missing(file, source.options[key]):
            yield (*way, "options", key), missing
    for key in ("mano", "urdf", "camera_poses"):
        value = getattr(source.assets, key)
        if value is not None and (missing := _missing(file, value)):
            yield (*way, "assets", key), missing


def _named(file: SpecFile, target: str) -> Iterator[tuple[Key, str]]:
    """Names that must be known, and files that must be right, of one target."""
    way, section = key_of(target), section_of(target)
    part = file.spec.parts()[target]
    try:
        if section in ("tiers", "manifests", "reports") and part.policy is not None:
            key = "policy"
            load_policy(file.policy(part.policy))
        if section == "measures":
            key = "only"
            select_measures(part.only)
        if section == "latents":
            key = "encoder"
            sources = (part.weights, part.hub_id, part.untrained)
            if encoder_spec(part.encoder).needs_source and all(each is None for each in sources):
                raise ConfigError(f"{part.encoder} needs weights, hub_id or untrained")
        if section in ("manifests", "latents", "text_features"):
            key = "where"
            check_where(part.where, SEGMENTS if section == "manifests" else EPISODES)
        if section == "manifests":
            key = "split"
            shares_from(part.split.val, part.split.test)
            key = "mixture_file"
            if part.mixture_file is not None and file.at(part.mixture_file).is_file():
                load_mixture(file.at(part.mixture_file))
            if part.mixture_file is not None and part.mixture is not None:
                raise ConfigError("only one of mixture and mixture_file")
    except ConfigError as error:
        yield (*way, key), str(error)


def _outputs(file: SpecFile) -> Iterator[tuple[Key, str]]:
    """Every output has a path of its own, outside of the corpus and of raw data."""
    for name, export in file.spec.exports.items():
        yield from _export_problems(file, ("exports", name), export)
    places: dict[Path, str] = {}  # and what is written there
    raw = {
        file.at(each.path).resolve(): name
        for name, each in file.spec.sources.items()
        if not scheme_of(each.path)
    }
    for section, key in (("reports", "html"), ("exports", "warehouse"), ("exports", "out")):
        for name, part in getattr(file.spec, section).items():
            value = getattr(part, key)
            if value is None:
                continue
            path, way = file.at(value).resolve(), (section, name, key)
            inside = next((raw[at] for at in (path, *path.parents) if at in raw), None)
            if inside is not None:
                yield (
                    way,
                    f"is inside the raw data of sources.{inside}; expected a path outside of it",
                )
            elif path.is_relative_to(file.corpus.resolve()):
                yield way, "is inside the corpus; expected a path outside of it"
            elif section == "reports" and not path.parent.is_dir():
                yield way, f"{path.parent}: no such folder"
            elif key in ("html", "out") and path in places:
                yield way, f"{places[path]} writes to the same place"
            places.setdefault(path, f"{section}.{name}")


def _export_problems(file: SpecFile, way: Key, export: ExportSpec) -> Iterator[tuple[Key, str]]:
    """Keys of another format, and those that the format needs."""
    for key in sorted(export.model_fields_set - {"to", "after", *export.own_keys}):
        yield (*way, key), f"does not go with to: {export.to}"
    if export.to is ExportFormat.ICEBERG:
        if export.warehouse is None and export.catalog is None:
            yield way, "set warehouse or catalog: the place of the tables"
        return
    if export.manifest is None or export.out is None:
        yield way, f"{export.to} needs manifest and out"
    elif export.manifest not in file.spec.manifests:
        nearest = did_you_mean(export.manifest, file.spec.manifests)
        yield (*way, "manifest"), f"no manifest {export.manifest!r} in this spec{nearest}"
    if export.to is ExportFormat.LINGBOT_VA and (export.weights is None) == (
        export.untrained is None
    ):
        yield way, f"{export.to} needs one of weights and untrained"
