"""The work of `eicorpus latents actions`: a trained latent action model over the picture latents that a corpus has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.latents.encode_file import EncodeResult, UnitResult
from ingest.latents.plan import LatentTodo, LatentUnit, PlannedLatentFile, todo_of
from ingest.latents.run import LatentTally, encode_corpus
from ingest.latents.token_file import TokenFile
from ingest.storage.local import LocalStorage
from ingest.storage.rooted import item_within
from jobs.machine import refuse_without_room
from jobs.run_context import new_run_id
from jobs.stages.failures import retry_message
from jobs.ui.output import stderr
from jobs.ui.progress import ProgressLine
from schemas.errors import ConfigError, PipelineError, SourceError
from schemas.latent_header import span_of
from schemas.latents import LatentFacts
from schemas.manifest import Latent
from training.data.camera_views import views_of
from training.data.file_check import VerifiedFiles
from training.data.latent_reader import LatentFile
from training.lara.encode import ActionEncoder
from training.lara.settings import JointStage, NoLara
from training.policy.restored import restored_latent_actions
from training.run.checkpoint import Checkpoint, recipe_of
from training.run.parallel import Ranks, device_for
from training.run.restore import refuse_collapsed

NO_SOURCE = "no_latents"  # code of an episode without latents of the model's encoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionsPlan:
    """What is to be written. `sources`: by uid the file of each view; num_frames: of all due files together; left_out: episodes without latents."""

    encoder: ActionEncoder
    encoder_id: str
    todo: LatentTodo
    sources: dict[str, list[Latent | None]]
    num_frames: int
    left_out: int

    @property
    def num_bytes(self) -> int:
        """Of all files, without their heads."""
        lam = self.encoder.lara.settings.lam
        return self.num_frames * (lam.num_queries * (2 * lam.code_width + 8) + 8)

    def as_json(self) -> dict[str, object]:
        """For --json and --dry-run."""
        return {
            "encoder_id": self.encoder_id,
            "source_encoder_id": self.encoder.source_id,
            "later_s": self.encoder.later_s,
            "episodes": len(self.todo),
            "up_to_date": self.todo.up_to_date,
            "left_out": {NO_SOURCE: self.left_out},
            "num_bytes": self.num_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionsResult:
    """What a run did."""

    plan: ActionsPlan
    tally: LatentTally
    snapshot: int
    elapsed_s: float

    @property
    def failure(self) -> str:
        """Why it exits with 1; "" if it does not."""
        return retry_message(self.tally.failed, self.tally.discovered, "episodes")

    def as_json(self) -> dict[str, object]:
        """discovered = encoded + up_to_date + failed, in episodes."""
        tally = self.tally
        return self.plan.as_json() | {
            "discovered": tally.discovered,
            "up_to_date": tally.up_to_date,
            "encoded": tally.encoded,
            "failed": tally.failed,
            "errors": dict(tally.errors),
            "failures": tally.failures,
            "pictures": tally.num_pictures,
            "num_bytes": tally.num_bytes,
            "snapshot": self.snapshot,
            "elapsed_s": round(self.elapsed_s, 3),
        }


def action_encoder(checkpoint: Checkpoint, device: str) -> ActionEncoder:
    """
    Raises:
        ConfigError: the run has no latent action model, its code book collapsed, or the checkpoint is damaged.
    """
    recipe, where = recipe_of(checkpoint), f"--lam {checkpoint.folder}"
    at = device_for(Ranks(), device)
    lara = restored_latent_actions(checkpoint, device=at)
    if lara is None or isinstance(recipe.lara, NoLara):
        problem = "this run has no latent action model"
        raise ConfigError(problem, remedy="train one with --recipe lam", where=where)
    refuse_collapsed(lara.lam.book.usage, where=where)
    is_joint = isinstance(recipe.lara, JointStage)
    return ActionEncoder(
        lara=lara,
        source_id=checkpoint.state.encoder_id,
        later_s=recipe.lara.future_s if is_joint else recipe.data.future_s,  # type: ignore[union-attr]
        cameras=recipe.data.cameras,
        device=at,
    )


def plan_actions(
    corpus: CorpusLayout, current: Snapshot, encoder: ActionEncoder, where: str
) -> ActionsPlan:
    """
    Raises:
        ConfigError: no episode has latents of the model's encoder; the message names the command that makes them.
    """
    encoder_id = encoder.id
    every = todo_of(
        corpus, current, "", where=where
    ).due  # of no encoder: each camera of each episode
    fresh = _fresh(corpus, current, encoder, every)
    chosen = _chosen(fresh, encoder)
    uids = every["uid"].unique()
    if not len(chosen) and len(uids):
        model = encoder.source_id.partition("-")[0]
        problem = (
            f"no episode has latents of {encoder.source_id}, which the latent action model reads"
        )
        repair = f"run `eicorpus latents images {corpus.root} --encoder {model}` with the options of that encoder"
        raise ConfigError(problem, remedy=repair, where=str(corpus.root))
    to_encode = todo_of(corpus, current, encoder_id, where=where).due
    due = to_encode.join(chosen, on=["uid", "camera"], how="semi")
    frames = due.join(chosen, on=["uid", "camera"])["num_frames"]
    return ActionsPlan(
        encoder=encoder,
        encoder_id=encoder_id,
        todo=LatentTodo(
            corpus=corpus, due=due, up_to_date=len(chosen) - len(due), num_episodes=len(due)
        ),
        sources={
            uid: [None if view is None else Latent(**view) for view in views]
            for uid, views in chosen.select("uid", "views").iter_rows()
        },
        num_frames=int(frames.sum()),
        left_out=len(uids) - len(chosen),
    )


def _fresh(
    corpus: CorpusLayout, current: Snapshot, encoder: ActionEncoder, every: pl.DataFrame
) -> pl.DataFrame:
    """The newest row of each camera's latents of the model's encoder, where they are of the video of now."""
    columns = ["uid", "camera", "path", "num_frames", "sha256", "video_sha256", "run_id"]
    columns += ["encoder_id", "pack_offset", "num_bytes"]
    only = pc.field("encoder_id") == encoder.source_id
    rows = pl.DataFrame(current.read(corpus.root, "latents", columns, only=only))
    newest = rows.sort("run_id", maintain_order=True).unique(["uid", "camera"], keep="last")
    same = ["uid", "camera", "video_sha256"]
    return newest.join(every, on=same, how="semi").sort("uid", "camera")


def _chosen(fresh: pl.DataFrame, encoder: ActionEncoder) -> pl.DataFrame:
    """uid, camera, views and num_frames of episodes that have a camera for a view: `views` has the file of each, and the file of latent actions is under
    the camera of the first.
    """
    out: list[dict[str, object]] = []
    for (uid,), of_episode in fresh.group_by("uid", maintain_order=True):
        views = views_of(of_episode["camera"].to_list(), encoder.cameras)
        present = [i for i in views if i is not None]
        if present:
            files = of_episode.select(_VIEW.keys()).to_dicts()
            first = of_episode.row(present[0], named=True)
            out.append(
                {
                    "uid": uid,
                    "camera": first["camera"],
                    "views": [None if i is None else files[i] for i in views],
                    "num_frames": first["num_frames"],
                }
            )
    schema: dict[str, Any] = {
        "uid": pl.String,
        "camera": pl.String,
        "views": pl.List(pl.Struct(_VIEW)),
        "num_frames": pl.Int64,
    }
    return pl.DataFrame(out, schema=schema)


# A `Latent`, in Polars.
_VIEW = {
    **dict.fromkeys(("camera", "encoder_id", "path", "sha256"), pl.String),
    **dict.fromkeys(("pack_offset", "num_bytes"), pl.Int64),
}


class _ActionFiles:
    """Makes files one after the other, in this process: what costs is reading."""

    num_encoders = 1

    def __init__(self, plan: ActionsPlan, disk: LocalStorage) -> None:
        self.plan, self.disk, self.wait_s = plan, disk, 0.0
        self._sha256, self._compared = plan.encoder.weights_sha256, VerifiedFiles()

    def make(self, units: Iterator[LatentUnit]) -> Iterator[tuple[LatentUnit, UnitResult]]:
        """Raises OSError where a file cannot be written."""
        for unit in units:
            began_s = time.monotonic()
            files = tuple(map(self._file_of, unit.files))
            yield unit, UnitResult(files=files, busy_s=time.monotonic() - began_s)

    def _file_of(self, file: PlannedLatentFile) -> EncodeResult:
        try:
            views = [
                None if view is None else _opened(file, view)
                for view in self.plan.sources[file.uid]
            ]
            first = next(view for view in views if view is not None)
            self._check(file, first.facts)
            step = self.plan.encoder.step_of(views)
            self._compare(file)
        except (PipelineError, OSError) as error:
            return EncodeResult(error=f"{_code(error)}: {file.uid}: {error}")
        facts = self.plan.encoder.facts(first.facts, self.plan.encoder_id, self._sha256)
        path = item_within(Path(file.corpus), file.target(self.plan.encoder_id))
        self.disk.make_dir(path.parent)
        pieces = self.plan.encoder.pieces(views, step)
        try:
            with self.disk.atomic_writer(path, is_durable=True) as opened:
                filled = TokenFile(opened, facts)
                for piece in pieces:
                    filled.add(piece)
                num_bytes, sha256 = filled.finish()
        except ConfigError as error:  # what is read; a disk that cannot be written ends the run
            return EncodeResult(error=f"{_code(error)}: {file.uid}: {error}")
        return EncodeResult(
            row=file.row(facts, num_bytes=num_bytes, sha256=sha256),
            num_pictures=facts.num_frames,
            num_bytes=num_bytes,
        )

    def _compare(self, file: PlannedLatentFile) -> None:
        """
        Raises:
            ConfigError: the bytes of a view are not those that were committed.
            OSError: they cannot be read.
        """
        for view in filter(None, self.plan.sources[file.uid]):
            path = item_within(Path(file.corpus), view.path)
            span = span_of(view.pack_offset, view.num_bytes)
            if digest := self._compared.other_digest(path, view.sha256, span):
                problem = f"sha256 is {digest}, {view.sha256} as committed"
                remedy = "remove the file, and run `eicorpus latents images` again"
                raise ConfigError(problem, remedy=remedy, where=view.path)

    def _check(self, file: PlannedLatentFile, facts: LatentFacts) -> None:
        """
        Raises:
            ConfigError: the file is of another episode or video than the catalog says.
        """
        stated = (facts.uid, facts.camera, facts.video_sha256, facts.length, facts.encoder_id)
        expected = (
            file.uid,
            file.camera,
            file.video_sha256,
            file.length,
            self.plan.encoder.source_id,
        )
        if stated != expected:
            message = f"latents of {stated}, expected {expected}; run `eicorpus verify`"
            raise ConfigError(message, where=file.target(facts.encoder_id))


def _opened(file: PlannedLatentFile, view: Latent) -> LatentFile:
    path = item_within(Path(file.corpus), view.path)
    return LatentFile(path, view.path, span_of(view.pack_offset, view.num_bytes))


def _code(error: PipelineError | OSError) -> str:
    if isinstance(error, SourceError):
        return error.code.value
    return "io_error" if isinstance(error, OSError) else "latents_differ"


def run_actions(
    corpus: CorpusLayout,
    encoder: ActionEncoder,
    *,
    where: str,
    on_plan: Callable[[ActionsPlan], None] = lambda plan: None,
) -> ActionsResult:
    """Write what is missing. Shows progress on standard error.

    Raises:
        ConfigError: see `plan_actions`; or the disk has no room.
        OSError: a file cannot be written.
    """
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        plan = plan_actions(corpus, current, encoder, where)
        on_plan(plan)
        refuse_without_room(corpus.root, plan.num_bytes, "encode less with --where SQL")
        began_s = time.monotonic()
        with ProgressLine(stderr, "latents", len(plan.todo)) as shown:
            tally, current = encode_corpus(
                plan.todo,
                current,
                _ActionFiles(plan, disk),
                run_id=new_run_id(),
                disk=disk,
                progress=lambda tally: shown.update(tally.encoded + tally.failed),
            )
    return ActionsResult(
        plan=plan, tally=tally, snapshot=current.number, elapsed_s=time.monotonic() - began_s
    )
