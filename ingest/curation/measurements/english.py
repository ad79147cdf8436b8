"""Words that tell an English instruction from a label, a placeholder and another language: short lists, no download.

The verbs are those of household and bench manipulation as narrations and robot instructions use them (EPIC-KITCHENS verb classes, Bridge and
AgiBot instructions; chosen by us). They are lists to count with, not a dictionary: a word that is missing makes a text look less
specific, never wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


VERBS = _words(
    """
    add adjust align apply arrange assemble attach bend bind blend boil break bring brush build carry catch change check chop
    clean clear click climb close collect combine compress connect cook cool count cover crack crush cut dip disassemble distribute
    divide drag drain draw drink drop dry dump eat empty erase exchange fasten feed fill filter flatten flip fold follow gather get
    give grab grasp grate grind grip hammer handle hang heat hit hold hook insert inspect iron keep kick knead knock lay lean
    leave lift light load lock loosen lower make mark measure mix mount move open operate organize pack paint paste pat peel
    pick pierce pinch pivot place plant play plug point polish position pour prepare press pull pump push put raise reach read
    rearrange release remove repair replace retrieve return reverse rinse rip roll rotate rub sand scan scoop scrape screw scrub seal
    separate serve set sew shake shape sharpen shift shut sift slice slide smooth soak sort spin split spray spread sprinkle
    squeeze stack stamp stand staple stick stir store straighten stretch strip swap sweep swing switch take tap tear test throw tie
    tighten tilt tip toggle touch transfer transport trim turn twist type unbutton uncover unfold unlock unpack unplug unscrew unstack
    untie unwrap unzip use wash water wave wear weigh wet wind wipe withdraw wrap write zip
    """
)
FUNCTION_WORDS = _words(
    """
    a about above across after again against all along an and another any are around as at away back be been before behind below
    beneath beside between both but by can do does down during each every for forward from front has have he her here him his i if in
    inside into is it its itself just left me more my near next no not now of off on once one onto or other out outside over own
    right same several she side so some than that the their them then there these they this those through to together top toward
    towards two under underneath until up upon upwards downwards very was we were what when where which while who will with within
    without you your
    """
)
# Common in French, German, Spanish, Italian and Portuguese, and no English words of an instruction.
FOREIGN_WORDS = _words(
    "avec das dans de del dem den der des el et il la las le les lo los mit nach para por sur sul und une uma um una y zu"
)
PLACEHOLDERS = _words(
    """
    action caption clip data debug default demo demonstration description dummy empty episode example instruction label language
    na nan nil no none null placeholder prompt recording sample sequence string task tbd test text todo trajectory
    undefined unknown unlabeled unlabelled unnamed untitled valid invalid video xxx
    """
)
VAGUE = frozenset(
    {
        "complete the task",
        "do something",
        "do the task",
        "human activity",
        "human video",
        "manipulate objects",
        "no annotation",
        "no instruction",
        "perform a task",
        "perform the task",
    }
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def words_of(text: str) -> list[str]:
    """Lower-case words; numbers count, `_` and punctuation separate, and of Chinese, Japanese and Korean each character counts."""
    spaced = _IDEOGRAPH.sub(lambda m: f" {m[0]} ", text.lower())
    return _WORD.findall(spaced)


def is_placeholder(text: str) -> bool:
    """Empty, or a placeholder ("none", "task 12", "perform the task")."""
    words = [word for word in words_of(text) if not word.isdigit()]
    if " ".join(words) in VAGUE:
        return True
    return all(word in PLACEHOLDERS or (len(word) == 1 and word.isascii()) for word in words)


@lru_cache(maxsize=4096)
def verb_of(word: str) -> str | None:
    """The base form of a verb of the list ("picks", "picking", "picked" -> "pick"), or None."""
    return base_of(word, VERBS)


def base_of(word: str, verbs: frozenset[str]) -> str | None:
    """The one of `verbs` that `word` is a form of, or None."""
    if word in verbs:
        return word
    for ending in ("ing", "ed", "es", "s", "d"):
        if not word.endswith(ending) or len(word) - len(ending) < 2:
            continue
        stem = word.removesuffix(ending)
        forms = [stem, f"{stem}e"]
        if stem[-1] == stem[-2]:  # putting, gripped
            forms.append(stem[:-1])
        if stem[-1] == "i":  # carries, dried
            forms.append(f"{stem[:-1]}y")
        for form in forms:
            if form in verbs:
                return form
    return None


def is_english(text: str) -> bool | None:
    """False when a tenth of the letters are not ASCII, or other languages' words prevail; None when no word tells."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return None
    if sum(c.isascii() for c in letters) < 0.9 * len(letters):
        return False
    words = words_of(text)
    english = sum(word in FUNCTION_WORDS or verb_of(word) is not None for word in words)
    foreign = sum(word in FOREIGN_WORDS for word in words)
    return None if english == foreign else english > foreign
