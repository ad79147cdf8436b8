"""What a network learned from, it must be given again: numbers of another encoder mean nothing to its weights, though they be as many."""

from __future__ import annotations

from schemas.errors import ConfigError
from training.run.checkpoint import Checkpoint
from training.run.parallel import Ranks, all_gather_str


def check_encoder(begun: Checkpoint, encoder_id: str) -> None:
    """
    Raises:
        ConfigError: its pictures were those of another encoder.
    """
    was = begun.state.encoder_id
    if was != encoder_id:
        problem = f"latents of {encoder_id}; {begun.folder} was trained on those of {was}"
        repair = f"use --set data.encoder={was}, after `eicorpus latents images` with it"
        raise ConfigError(problem, remedy=repair, where="recipe key data.encoder")


def check_text(begun: Checkpoint, text_id: str) -> None:
    """Of a checkpoint that does not say who told it, nothing is known and nothing refused.

    Raises:
        ConfigError: its instructions were told by another language model, or by the same one asked otherwise.
    """
    was, asked = begun.state.text_id, begun.state.text_settings
    if was in ("", text_id):
        return
    problem = f"text told by {text_id or 'no language model'}; {begun.folder} was trained on that of {was}"
    how = "" if asked is None else f", asked {asked.model_dump_json(exclude_defaults=True)}"
    repair = f"say --set text.encoder={was} where it is stored, or --set text.model=FOLDER of that model{how}"
    raise ConfigError(problem, remedy=repair, where="recipe key text")


def check_same_text(text_id: str, ranks: Ranks) -> None:
    """The folder of a language model has one path on all machines of a run, which is not to say that it is one model.

    Raises:
        ConfigError: ranks are told their text by different ones.
    """
    ids = all_gather_str(text_id, ranks)
    if len(set(ids)) > 1:
        problem = f"ranks are told their text by {', '.join(text or 'no model' for text in ids)}"
        repair = "give every machine the same folder of it"
        raise ConfigError(problem, remedy=repair, where="recipe key text.model")
