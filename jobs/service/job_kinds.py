"""The jobs that a client may submit: a closed set of commands with typed options. None of the options is a path, an address or a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
ManifestName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sql = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
MAX_UIDS = 10_000
Uid = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7f]{1,100}$")]
Target = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z_]{0,63}(\.[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?$")
]
Count = Annotated[int, Field(ge=0, le=256)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    needs_spec: ClassVar[bool] = False

    def words(self, corpus: Path, spec: Path | None) -> list[str]:
        """The arguments of `eicorpus`. An option and its value are one word, so that no value becomes an option.

        Raises:
            ConfigError: the job builds from a spec, and the server has none.
        """
        raise NotImplementedError

    def standard_input(self) -> bytes:
        """What the command reads there."""
        return b""


class _SpecJob(_Job):
    needs_spec = True
    targets: Annotated[list[Target], Field(max_length=100)] = []

    def _words(self, command: str, spec: Path | None) -> list[str]:
        if spec is None:
            raise ConfigError("the server has no corpus spec", remedy="serve the file of the spec")
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
