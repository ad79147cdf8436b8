"""What a narration or label says of hands and objects, by word lists: no model, no download.

HANDLING: one of its words is a verb of handling where a verb can stand (not after an article, a possessive or a preposition: "a cut",
"look at the light"). Verbs that also tell how a body moves count with an object only: "move cup", "turn on tap"; not "turn around".
NO_HANDS: after the subject, it begins with what a person does without hands (hoi_filter.md §5: walk, look, talk, stand, turn
around), and nothing in it is handled. "Walks and picks a cup" is handling; "waits for water to boil" or "looks at the man cutting
wood" say nothing, because who handles is not settled. CAMERA_ONLY: the camera templates of Something-Something V2 (label list
of the release): "Approaching [something] with your camera", "Moving away from [something] with your camera", "Turning the camera left while
filming [something]". Everything else says NOTHING: a word that is missing here costs a decision, never makes a wrong one.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from ingest.curation.measurements.english import VERBS, base_of, is_placeholder, words_of


class TextEvidence(IntEnum):
    """What a text says."""

    NOTHING = 0
    HANDLING = 1
    NO_HANDS = 2
    CAMERA_ONLY = 3


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


MORE_HANDLING = _words(  # EPIC-KITCHENS and Ego4D narrations, beside english.VERBS
    """
    clamp collapse crumple dice dig dismantle drill dust fetch fix fry grasp hoist knit ladle lather load mash mow nudge operate paste pluck
    poke prod prune rake refill reposition saw scratch scrunch sew sharpen shovel shred sieve skewer smear soap solder spoon squash stab
    strain strap submerge swirl tape toss trash tweak unclip unfasten unhook unplug unroll unseal untangle vacuum weave whisk wring yank
    """
)
# Done with eyes, or with the whole body: no handling whatever follows.
NOT_HANDLING = _words("check count follow inspect point read scan stand test")
HANDLING = (VERBS | MORE_HANDLING) - NOT_HANDLING
BODY_OR_OBJECT = _words(
    "bend change collapse drop fall keep lean leave lift lower measure move pass play raise reach return roll rotate shake shift slide "
    "spin swing switch transfer turn twist type use wave"
)
NO_HANDS = _words(
    "chat come converse dance gaze glance go jog kneel laugh listen look nod observe rest run sit sleep smile speak squat stand stare "
    "stroll talk think wait walk wander watch"
)
WITH_AN_OBJECT_NO_BODY = _words("rest run stand")  # "stand the bottle", "run the tap": says nothing
LOOKING_FOR = _words("for in inside into through under")  # a search, with hands perhaps
TURNING = _words("turn move spin rotate")
AROUND = _words("around round away back left right forward forwards backward backwards")
AFTER_THESE_A_NOUN = _words(
    "a an the his her its their my your our this that these those some any each every no another at of in into inside on onto with from "
    "for by near under over behind between through across around toward towards about like"
)
PARTICLES = _words("on off in out up down over open")
BODY = AROUND | _words(
    "arm arms aside body head himself herself here sideways hand hands finger fingers leg legs feet foot eyes face there room house"
)
WHO = _words(
    "c camera he is lady man now operator participant person she still student the then they user wearer woman x"
)
EMPTY = _words("a an the his her its their my your our it to and then with in of at while both")
CONNECTORS = _words("and then while")
_CAMERA = re.compile(
    r"^\s*(?:approaching|moving away from|moving (?:closer|towards?)) .* with (?:your|the) camera\s*$"
    r"|^\s*(?:turning|tilting|panning) the camera\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=65536)
def text_evidence(text: str) -> TextEvidence:
    """What one text says; a placeholder says nothing."""
    if is_placeholder(text):
        return TextEvidence.NOTHING
    if _CAMERA.search(text):
        return TextEvidence.CAMERA_ONLY
    words = words_of(text)
    while words and words[0] in WHO:
        words = words[1:]
    handles = [i for i in range(len(words)) if _handles(words, i)]
    if not _begins_without_hands(words):
        return TextEvidence.HANDLING if handles else TextEvidence.NOTHING
    if not handles:
        return TextEvidence.NO_HANDS
    is_second = any(word in CONNECTORS for word in words[: handles[-1]])
    return TextEvidence.HANDLING if is_second else TextEvidence.NOTHING


def _handles(words: list[str], at: int) -> bool:
    if at > 0 and words[at - 1] in AFTER_THESE_A_NOUN:
        return False
    verb = base_of(words[at], HANDLING)
    return verb is not None and (verb not in BODY_OR_OBJECT or _has_object(words[at + 1 :]))


def _has_object(after: list[str]) -> bool:
    """Said of "the cup", "on the tap", "around the meat"; not of "around", "to the left", "his head"."""
    content = [word for word in after if word not in EMPTY]
    if len(after) > 1 and after[0] in AROUND and after[1] in ("a", "an", "the"):
        content = content[1:]
    if content and content[0] in PARTICLES:
        content = content[1:]
    return bool(content) and content[0] not in BODY


def _begins_without_hands(words: list[str]) -> bool:
    if not words:
        return False
    verb, after = base_of(words[0], NO_HANDS), words[1:]
    if verb in WITH_AN_OBJECT_NO_BODY:
        return not after or after[0] in PARTICLES | AFTER_THESE_A_NOUN - {"a", "an", "the"}
    if verb == "look":
        return not (after and after[0] in LOOKING_FOR)
    if verb is not None:
        return True
    content = [word for word in after if word not in EMPTY]
    is_turn = base_of(words[0], TURNING) is not None and bool(content) and content[0] in AROUND
    return is_turn and all(word in BODY for word in content)  # "move around meat" is no turn
