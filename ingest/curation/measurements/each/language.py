"""Is there an instruction, and does it say what to do with what: by explicit word lists (ingest/curation/measurements/english.py).

Shares are of timesteps, by the text that holds at each (the `tasks` of the catalog with their counts); the numbers about words are means
over the timesteps that have a text which is no placeholder. Content words are longer than a letter and no
function words. A text has an object when a content word that is no verb follows its first verb; "verb" and "object" are asked of
English texts only (captioning.md §3, check 1: the first token in a verb list; ours: any token, since narrations begin "#C C picks").
English: at least nine letters of ten are ASCII, and its function words and verbs outnumber those of five other languages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ingest.curation.measurements.english import (
    FUNCTION_WORDS,
    is_english,
    is_placeholder,
    verb_of,
    words_of,
)
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.measurement import Measurement

PRESENT = OutputField(
    name="language_share", unit="share", about="timesteps with a text that is not a placeholder"
)
TEXTS = OutputField(
    name="language_texts",
    unit="count",
    about="number of different texts, of the episode and its subtasks",
)
WORDS = OutputField(name="language_words", unit="count", about="words per text")
CONTENT = OutputField(name="language_content_share", unit="share", about="content words per text")
VERB = OutputField(
    name="language_verb_share", unit="share", about="share of English texts that name an action"
)
OBJECT = OutputField(
    name="language_object_share", unit="share", about="share of English texts that name an object"
)
ENGLISH = OutputField(
    name="language_english_share", unit="share", about="share of texts in English"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What can be counted in one text. `english` None: no word tells."""

    words: int
    content: int
    has_verb: bool
    has_object: bool
    english: bool | None


def wording(text: str) -> Wording:
    """Count the words of a text that is no placeholder."""
    words = words_of(text)
    content = [w for w in words if w not in FUNCTION_WORDS and len(w) > 1]
    first_verb = next((i for i, word in enumerate(words) if verb_of(word)), None)
    after = words[first_verb + 1 :] if first_verb is not None else []
    return Wording(
        words=len(words),
        content=len(content),
        has_verb=first_verb is not None,
        has_object=any(word in content and not word.isdigit() for word in after),
        english=is_english(text),
    )


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Presence always; the rest where there is a text."""
    counted = list(zip(view.row["tasks"], view.row["task_counts"], strict=True))
    wordings = [(wording(text), count) for text, count in counted if not is_placeholder(text)]
    timesteps = sum(count for _, count in wordings)
    yield PRESENT.row(timesteps / view.length, view.length)
    parts = {s["text"] for s in view.segments if s["text"]} | {text for text, _ in counted}
    distinct = {" ".join(words_of(text)) for text in parts if not is_placeholder(text)}
    yield TEXTS.row(len(distinct), view.length)
    if not timesteps:
        return
    yield WORDS.row(sum(t.words * n for t, n in wordings) / timesteps, timesteps)
    share = sum(t.content / t.words * n for t, n in wordings) / timesteps
    yield CONTENT.row(share, timesteps)
    sure = sum(n for t, n in wordings if t.english is not None)
    if sure:
        english = sum(n for t, n in wordings if t.english)
        yield ENGLISH.row(english / sure, sure)
        if english:
            yield VERB.row(
                sum(n for t, n in wordings if t.english and t.has_verb) / english, english
            )
            named = sum(n for t, n in wordings if t.english and t.has_object)
            yield OBJECT.row(named / english, english)


MEASURE = Measure(
    name="language",
    version=1,
    outputs=(PRESENT, TEXTS, WORDS, CONTENT, VERB, OBJECT, ENGLISH),
    compute=compute,
)
