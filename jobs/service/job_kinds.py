"""The jobs that a client may submit: a closed set of commands with typed options. None of the options is a path, an address or a program:
folders of models and tables are those of the spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ingest.corpus.manifest_folders import version_and_folder
from jobs.build.spec_file import SpecFile, read_spec_alone
from schemas.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
ManifestName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sql = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
MAX_UIDS = 10_000
Uid = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7f]{1,100}$")]
Target = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z_]{0,63}(\.[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?$")
]
TargetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")]
Count = Annotated[int, Field(ge=0, le=256)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    needs_spec: ClassVar[bool] = False
    section: ClassVar[str] = ""  # of the spec, of which it needs a part

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        """The arguments of `eicorpus`. An option and its value are one word, so that no value becomes an option.

        Raises:
            ConfigError: the job builds from a spec, and the server has none.
        """
        raise NotImplementedError

    def standard_input(self) -> bytes:
        """What the command reads there."""
        return b""


def _part(spec: Path | None, section: str, name: str) -> tuple[SpecFile, Any]:
    """
    Raises:
        ConfigError: the server has no spec, or its spec no such part.
    """
    if spec is None:
        raise _no_spec()
    file = read_spec_alone(spec)
    part = getattr(file.spec, section).get(name)
    if part is None:
        raise ConfigError(f"the corpus spec has no {section}.{name}", where=str(spec))
    return file, part


def _no_spec() -> ConfigError:
    return ConfigError("the server has no corpus spec", remedy="serve the file of the spec")


def _options(chosen: Mapping[str, object]) -> list[str]:
    """Options of a command; none for None and a flag that is off."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in chosen.items()
        if value is not None and value is not False
    ]


class _SpecJob(_Job):
    needs_spec, section = True, "targets"
    targets: Annotated[list[Target], Field(max_length=100)] = []

    def _words(self, command: str, spec: Path | None) -> list[str]:
        if spec is None:
            raise _no_spec()
        return [command, str(spec), *self.targets]


class BuildJob(_SpecJob):
    kind: Literal["build"]

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return self._words("build", spec)


class PlanJob(_SpecJob):
    kind: Literal["plan"]

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return self._words("plan", spec)


class MeasureJob(_Job):
    kind: Literal["measure"]
    only: Annotated[list[Name], Field(max_length=100)] = []
    workers: Count | None = None

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        workers = [] if self.workers is None else [f"--workers={self.workers}"]
        return ["measure", str(corpus), *(f"--only={name}" for name in self.only), *workers]


class TierJob(_Job):
    kind: Literal["tier"]
    policy: Name

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return ["tier", str(corpus), f"--policy={self.policy}"]


class DedupJob(_Job):
    kind: Literal["dedup"]

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return ["dedup", str(corpus)]


class ManifestJob(_Job):
    kind: Literal["manifest"]
    name: ManifestName
    where: Sql = ""
    uids: Annotated[list[Uid], Field(max_length=MAX_UIDS)] = []  # none: all episodes
    policy: Name | None = None
    val: Share = 0.02
    test: Share = 0.02

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        policy = [] if self.policy is None else [f"--policy={self.policy}"]
        selected = [f"--where={self.where}", f"--val={self.val}", f"--test={self.test}"]
        uids = ["--uids=-"] if self.uids else []
        return ["manifest", "build", str(corpus), self.name, *selected, *policy, *uids]

    def standard_input(self) -> bytes:
        return "\n".join(self.uids).encode()


class CaptionJob(_Job):
    """By rules, which need no model; the backend of a spec is a matter of its target `captions`."""

    kind: Literal["caption"]
    only_missing: bool = False
    limit: Annotated[int, Field(ge=1, le=10**9)] | None = None

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        chosen = {"backend": "rules", "only-missing": self.only_missing, "limit": self.limit}
        return ["caption", str(corpus), *_options(chosen)]


class LatentsJob(_Job):
    """Image tokens as the spec says: its weights and no other folder."""

    kind: Literal["latents"]
    needs_spec, section = True, "latents"
    latents: TargetName

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        file, part = _part(spec, "latents", self.latents)
        chosen = {
            "encoder": part.encoder,
            "weights": part.weights and file.at(part.weights),
            "hub-id": part.hub_id,
            "untrained": part.untrained,
            "dtype": part.dtype,
            "stride": part.stride,
            "keep-prefix": part.keep_prefix,
            "fit": part.fit,
            "where": part.where or None,
            "device": part.device,
            "batch": part.batch,
            "compile": part.compile,
        }
        cameras = [f"--camera={camera}" for camera in part.cameras]
        return ["latents", "images", str(corpus), *_options(chosen), *cameras]


class TextFeaturesJob(_Job):
    """Features of instructions as the spec says."""

    kind: Literal["text_features"]
    needs_spec, section = True, "text_features"
    text_features: TargetName

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        file, part = _part(spec, "text_features", self.text_features)
        chosen = {
            "vlm": file.at(part.vlm),
            "vlm-layer": part.layer,
            "vlm-frame-every-s": part.frame_every_s,
            "vlm-prompt": part.prompt,
            "camera": part.camera,
            "where": part.where or None,
            "device": part.device,
            "batch": part.batch,
        }
        return ["latents", "text", str(corpus), *_options(chosen)]


class ExportJob(_Job):
    """Tables or datasets in the place that the spec names; datasets of the newest version of their manifest."""

    kind: Literal["export"]
    needs_spec, section = True, "exports"
    exports: TargetName

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        file, part = _part(spec, "exports", self.exports)
        chosen = {
            key.replace("_", "-"): getattr(part, key)
            for key in part.own_keys
            if key != "allow_licence"
        }
        for key in ("warehouse", "weights"):
            if chosen.get(key) is not None:
                chosen[key] = file.at(chosen[key])
        if part.manifest is not None:
            version, folder = version_and_folder(corpus, part.manifest, file.at(part.out))
            chosen |= {"manifest": version, "out": folder}
        licences = [f"--allow-licence={each}" for each in part.allow_licence]
        return ["export", str(corpus), "--to", part.to, *_options(chosen), *licences]


class ReportJob(_Job):
    kind: Literal["report"]

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return ["report", str(corpus)]


class VerifyJob(_Job):
    kind: Literal["verify"]
    deep: bool = False

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return ["verify", str(corpus), *(["--deep"] if self.deep else [])]


class CompactJob(_Job):
    kind: Literal["compact"]

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        return ["compact", str(corpus)]


JobRequest = Annotated[
    BuildJob
    | PlanJob
    | MeasureJob
    | TierJob
    | DedupJob
    | ManifestJob
    | CaptionJob
    | LatentsJob
    | TextFeaturesJob
    | ExportJob
    | ReportJob
    | VerifyJob
    | CompactJob,
    Field(discriminator="kind"),
]
# Name of a kind -> the model of its options.
KINDS: dict[str, type[_Job]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in get_args(get_args(JobRequest)[0])
}
