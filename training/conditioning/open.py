"""From what a recipe says of text to the two halves that do it; what cannot work is refused here, before the first step."""

from __future__ import annotations

from schemas.errors import ConfigError
from schemas.manifest import Manifest
from training.conditioning.cached import (
    CachedConditioner,
    CachedReader,
    chosen_encoder,
    refuse_absent_features,
)
from training.conditioning.hashed_words import (
    NoTextConditioner,
    NoTextReader,
    WordsConditioner,
    WordsReader,
)
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.protocol import Conditioner, TextReader
from training.conditioning.text_model import settings_of, text_id_of
from training.conditioning.video_frame import rate_hz_of
from training.conditioning.vlm_parts import folder_of
from training.data.broken import first_readable
from training.recipe import CachedText, OnlineText, TextSettings, WordsText


def open_conditioner(
    text: TextSettings,
    manifest: Manifest,
    *,
    split: str = "train",
    verify_latents: bool = False,
    max_bad: int = 0,
    has_answers: bool = False,
) -> tuple[TextReader, Conditioner]:
    """The reader for the loader's workers and the module for the step, for all splits of `manifest`.

    Args:
        split: whose files of text features must all be there.
        verify_latents: read each file of text features whole once and compare its sha256, however large it is.
        has_answers: a language model in the step also learns the answers of image-text pairs.
        max_bad: files of text features that may be unreadable before the one whose width and settings count.

    Raises:
        ConfigError: segments lack the features, a file of them is not what the manifest says, or there is no such model.
    """
    if isinstance(text, WordsText):
        return (
            WordsReader(num_buckets=text.num_buckets, num_words=text.num_words),
            WordsConditioner(text.num_buckets, text.num_words, text.width),
        )
    if isinstance(text, CachedText):
        encoder_id = chosen_encoder(manifest, text.encoder)
        rows_of_split = manifest.of_split(split)
        refuse_absent_features(rows_of_split, encoder_id)
        stored = CachedReader(
            corpus=manifest.corpus, encoder_id=encoder_id, with_digest=verify_latents
        )
        of = rows_of_split if len(rows_of_split) else manifest
        facts = first_readable(of, range(len(of)), stored.facts_of, max_bad=max_bad)
        if text.needs_pictures and facts.settings.picture_every_s is None:
            raise _text_only_features(manifest, encoder_id)
        return stored, CachedConditioner(facts.width, facts.encoder_id, facts.settings)
    if isinstance(text, OnlineText):
        folder = folder_of(text.model)
        asked = OnlineConditioner(folder, text.layer, text.train_last, has_answers=has_answers)
        rate_hz = rate_hz_of(manifest.corpus, manifest.row(0).dataset_path)
        asked.text_settings = settings_of(text, asked.num_layers, rate_hz)
        asked.text_id = text_id_of(folder, asked.text_settings)
        return OnlineReader(corpus=manifest.corpus, folder=folder, settings=text), asked
    return NoTextReader(), NoTextConditioner()


def _text_only_features(manifest: Manifest, encoder_id: str) -> ConfigError:
    problem = f"{encoder_id} was encoded from text only, and this recipe needs text features encoded with images"
    command = (
        f'eicorpus latents text {manifest.corpus} --vlm FOLDER --vlm-frame-every-s 0.5 --camera "*"'
    )
    repair = f"run `{command}`, build a new manifest and add --set text.encoder=ID, or train on text only with --set text.needs_pictures=false"
    return ConfigError(problem, remedy=repair, where="recipe key text.needs_pictures")
