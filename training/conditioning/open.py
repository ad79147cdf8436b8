"""From what a recipe says of text to the two halves that do it; what cannot work is refused here, before the first step."""

from __future__ import annotations

from schemas.manifest import Manifest
from training.conditioning.cached import CachedConditioner, CachedReader, chosen_encoder
from training.conditioning.none import NoTextConditioner, NoTextReader
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.protocol import Conditioner, TextReader
from training.conditioning.vlm_parts import folder_of
from training.conditioning.words import WordsConditioner, WordsReader
from training.recipe import CachedText, OnlineText, TextSettings, WordsText


def open_conditioner(text: TextSettings, manifest: Manifest) -> tuple[TextReader, Conditioner]:
    """The reader for the loader's workers and the module for the step, for all splits of `manifest`.

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
        reader = CachedReader(corpus=manifest.corpus, encoder_id=encoder_id)
        return reader, CachedConditioner(reader.facts_of(manifest.row(0)).width)
    if isinstance(text, OnlineText):
        folder = folder_of(text.model)
        return (
            OnlineReader(corpus=manifest.corpus, folder=folder, settings=text),
            OnlineConditioner(folder, text.layer),
        )
    return NoTextReader(), NoTextConditioner()
