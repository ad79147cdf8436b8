"""The weights of a run before its first step, equal on every rank, and whether a checkpoint fits the latents and recipe of this run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from schemas.errors import ConfigError
from schemas.json_text import parse_json
from training.conditioning.protocol import Conditioner
from training.conditioning.text_model import text_id_of
from training.conditioning.vlm_parts import folder_of
from training.recipe import OnlineText, TextSettings
from training.run.checkpoint import Checkpoint, checkpoint_of, checkpoints, refuse_broken
from training.run.parallel import Ranks, all_gather_str, raise_on_any_rank
from training.run.run_folder import RunFacts
from training.run.session import TrainRequest


def check_encoder(begun: Checkpoint, encoder_id: str) -> None:
    """
    Raises:
        ConfigError: its pictures were those of another encoder.
    """
    was = begun.state.encoder_id
    if was != encoder_id:
        problem = (
            f"the latents are from encoder {encoder_id}; {begun.folder} was trained with {was}"
        )
        repair = (
            f"run `eicorpus latents images` with that encoder, then add --set data.encoder={was}"
        )
        raise ConfigError(problem, remedy=repair, where="recipe key data.encoder")


def check_text(
    begun: Checkpoint, conditioner: Conditioner, *, online: TextSettings | None = None
) -> None:
    """A checkpoint that does not record its text encoder is accepted.

    Args:
        online: of a run that begins with these weights. A language model in its step may see the image of now where stored features had one every so often.

    Raises:
        ConfigError: its instructions were encoded by another language model, or by the same one with other settings.
    """
    text_id = conditioner.text_id
    was, asked = begun.state.text_id, begun.state.text_settings
    if was in ("", text_id) or _differs_in_times_only(begun, conditioner, online):
        return
    problem = f"the text encoder is {text_id or 'no language model'}; {begun.folder} was trained with {was}"
    how = "" if asked is None else f" and settings {asked.model_dump_json(exclude_defaults=True)}"
    repair = f"use --set text.encoder={was} if its features are stored, or --set text.model=FOLDER with that model{how}"
    raise ConfigError(problem, remedy=repair, where="recipe key text")


def _differs_in_times_only(
    begun: Checkpoint, conditioner: Conditioner, online: TextSettings | None
) -> bool:
    was, now = begun.state.text_settings, conditioner.text_settings
    if not isinstance(online, OnlineText) or was is None or now is None:
        return False
    if was.picture_every_s is None or now.picture_every_s is None:
        return False
    if was.model_copy(update={"picture_every_s": now.picture_every_s}) != now:
        return False
    return text_id_of(folder_of(online.model), was) == begun.state.text_id


def check_same_text(text_id: str, ranks: Ranks) -> None:
    """The folder of a language model has one path on all machines of a run, which is not to say that it is one model.

    Raises:
        ConfigError: ranks use different language models.
    """
    ids = all_gather_str(text_id, ranks)
    if len(set(ids)) > 1:
        problem = (
            f"ranks use different language models: {', '.join(text or 'no model' for text in ids)}"
        )
        repair = "copy the same model folder to every machine"
        raise ConfigError(problem, remedy=repair, where="recipe key text.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """What has weights already, of which there is one at most: `resumed`, of this run, to go on from; `base` of another, to begin with.

    Beside a base or alone, `lam`: the run of a latent action model.
    """

    resumed: Checkpoint | None
    base: Checkpoint | None
    lam: Checkpoint | None = None

    @property
    def checkpoint(self) -> Checkpoint | None:
        return self.resumed or self.base


class ResumeDigest(BaseModel):
    """What must be the same everywhere. `checkpoint`: digest of its state, which has the embodiments, the recipe and the size of each file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int | None
    base_step: int | None
    lam_step: int | None
    checkpoint: str
    manifest: str
    recipe: str
    image_text: str

    @classmethod
    def of(cls, begun: ResumePoint, facts: RunFacts) -> ResumeDigest:
        resumed, base, either = begun.resumed, begun.base, begun.checkpoint
        states = [each.state.model_dump_json() for each in (either, begun.lam) if each is not None]
        return cls(
            step=None if resumed is None else resumed.state.step,
            base_step=None if base is None else base.state.step,
            lam_step=None if begun.lam is None else begun.lam.state.step,
            checkpoint=hashlib.sha256("".join(states).encode()).hexdigest(),
            manifest=facts.manifest_sha256,
            recipe=facts.recipe_sha256,
            image_text=facts.image_text_sha256,
        )


def resume_on_all_ranks(request: TrainRequest, facts: RunFacts, ranks: Ranks) -> ResumePoint:
    """Every rank must call this, before any of them reads weights.

    Raises:
        ConfigError: on every rank, where one of them sees what another does not, or a checkpoint is damaged.
    """
    none = ResumePoint(resumed=None, base=None)
    with raise_on_any_rank(ranks):
        refuse_broken(request.out)
        point = _newest(request) if ranks.is_first else none
    digests = all_gather_str(ResumeDigest.of(point, facts).model_dump_json(), ranks)
    with raise_on_any_rank(ranks):
        return _opened(request, facts, ResumeDigest.model_validate(parse_json(digests[0])))


def _newest(request: TrainRequest) -> ResumePoint:
    newest = next(reversed(checkpoints(request.out)), None)
    if newest is not None:
        return ResumePoint(resumed=newest, base=None)
    base, lam = (
        None if run is None else checkpoint_of(run) for run in (request.init_from, request.init_lam)
    )
    return ResumePoint(resumed=None, base=base, lam=lam)


def _opened(request: TrainRequest, facts: RunFacts, first: ResumeDigest) -> ResumePoint:
    """What the first rank chose, as this one sees it."""
    later = [each.state.step for each in checkpoints(request.out)]
    if max(later, default=0) > (first.step or 0):
        problem = f"the latest step is {max(later)} on this rank and {first.step or 0} on rank 0"
        raise ConfigError(problem, remedy=_REPAIR, where=str(request.out))
    begun = ResumePoint(
        resumed=_at(request.out, first.step),
        base=_at(request.init_from, first.base_step),
        lam=_at(request.init_lam, first.lam_step),
    )
    own, theirs = ResumeDigest.of(begun, facts).model_dump(), first.model_dump()
    if odd := [name for name, value in own.items() if value != theirs[name]]:
        problem = f"{', '.join(odd)} differs from rank 0"
        raise ConfigError(problem, remedy=_REPAIR, where=str(request.out))
    return begun


def _at(run: Path | None, step: int | None) -> Checkpoint | None:
    return None if run is None or step is None else checkpoint_of(run, step)


_REPAIR = "use storage that all machines share for MANIFEST, --out, --init-from and --init-lam"
