"""Source texts as English imperatives: "#C C picks up the cup with his right hand." -> "pick up cup with right hand".

Forms seen in real rows: Ego4D narrations ("#C C opens a shelf"), EPIC-KITCHENS ("pick-up plate", "still stirring"), Something-Something
("Putting cup on table"), sentences about a person ("The student turns the knob"), HOI4D ("Mug: Put it in the drawer"), VITRA ("Left hand:
... Right hand: ..."), robot instructions ("put carrot on plate", "pick_up_the_cup"). Nothing is translated and nothing is added: where
no verb is found to begin with, there is no instruction.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from ingest.curation.measurements.english import is_english, is_placeholder, verb_of, words_of

MAX_WORDS = 40
# Beside the verbs that count as specific (ingest/curation/measurements/english.py): what narrations also begin with.
MORE_VERBS = frozenset(
    words_of(
        """
        activate ask bake baste beat begin bite boot braid brew call chew choose clamp clap climb coat collapse come comb control crawl
        crochet crumble crumple curl declutter dice dig discard dish dispose dissolve do drape drizzle drum dust elevate ensure enter
        examine exit expand extend fan fetch file find finish fix flick fluff force fork freeze frost fry garnish glue go gouge grease
        grill have heap hoist hoover hose hug insulate interact jog jump kneel knit ladle lather launch let level lick line listen load
        loop look maneuver mash microwave mold mow navigate nudge observe organise pace pass peek peg pet pile pinch plaster plough pluck
        plumb poke pound preheat pretend prick prod prop prune pry puncture rake ram reattach recline reduce refill refrigerate regulate
        relocate reposition reseal rest retract roast roll run sanitize saute save saw scatter scoot scour scratch scrunch sear season see
        select serve sharpen shave shell shovel show shred shuffle sieve sip sit skewer skin slam slap slit smash smear smell snap soap
        solder spit splash spoon spot squash squat squirt stab stare start steady steam step stop strain strap stuff submerge suck
        swallow swat swirl tack talk tape taste thread tickle toast toss tow trace trash treat trowel try tuck tweak unclamp unclip
        unfasten unhook unload unpeg unroll unseal untangle untwist vacuum wait walk watch weave wedge weed weld whip whisk wiggle work
        wring yank
        """
    )
)
IRREGULAR = {"thrown": "throw", "took": "take", "taken": "take", "held": "hold", "does": "do", "goes": "go", "has": "have",
             "cutting": "cut", "tying": "tie", "lying": "lie", "wrote": "write", "written": "write"}  # fmt: skip
ARTICLES = frozenset(words_of("a an the his her hers their theirs my your our its"))
FILLERS = frozenset(
    words_of(
        "and please now then next continue finally first still slowly carefully gently quickly again also just to lets can could should must will"
    )
)
_TAG = re.compile(r"^\s*#\s*[A-Za-z]+\b\s*")
_WEARER = re.compile(r"^[cC]\b[\s,:]*(?!\.)")
_SUBJECT = re.compile(
    r"^(?:the |a |an |this )?(?:camera wearer|robot(?:ic)? arm|person|man|woman|lady|boy|girl|student|participant|user|operator|human|robot|"
    r"someone|somebody|he|she|they|we|you|i)\b\s+(?:(?:is|are|was|has|have|am)\s+)?",
    re.IGNORECASE,
)
_HANDS = re.compile(r"^\s*left hand:\s*(.+?)\s+right hand:\s*(.+)$", re.IGNORECASE | re.DOTALL)
_ONE_HAND = re.compile(r"^\s*(left|right) hand:\s*(.+)$", re.IGNORECASE | re.DOTALL)
_CATEGORY = re.compile(r"^([A-Z][A-Za-z ]{1,30}):\s+(\S.*)$")
_SENTENCE_END = re.compile(r"[.!?;]+\s+(?=\w)")
_NOT_WORDS = re.compile(r"[^\w\s'/%+-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imperative:
    """`text` is "" where `problem` says why there is none."""

    text: str = ""
    problem: str = ""


@lru_cache(maxsize=1 << 14)  # sources say the same again and again
def imperative(text: str) -> Imperative:
    """The instruction in a source's text, without subject, articles, possessives and punctuation, in lower case."""
    plain = " ".join(unicodedata.normalize("NFKC", text).replace("_", " ").split())
    if is_placeholder(plain):
        return Imperative(problem="no text")
    if both := _HANDS.match(plain):
        return _of_both(both[1], both[2])
    if one := _ONE_HAND.match(plain):
        return _with_hand(imperative(one[2]), one[1].lower())
    if named := _CATEGORY.match(plain):
        # "Mug: Put it in the drawer" says what "it" is
        about = re.sub(r"\bit\b", named[1].lower(), named[2], count=1, flags=re.IGNORECASE)
        plain = about if about != named[2] else plain
    if is_english(plain) is False:
        return Imperative(problem="not English")
    return _sentence(plain)


def _of_both(left: str, right: str) -> Imperative:
    a, b = imperative(left), imperative(right)
    if a.problem or b.problem:
        return _with_hand(b, "right") if a.problem else _with_hand(a, "left")
    if a.text == b.text:
        return Imperative(text=f"{a.text} with both hands")
    return Imperative(text=f"{a.text} with left hand and {b.text} with right hand")


def _with_hand(command: Imperative, side: str) -> Imperative:
    if command.problem or f"{side} hand" in command.text:
        return command
    return Imperative(text=f"{command.text} with {side} hand")


def _sentence(plain: str) -> Imperative:
    bare = _WEARER.sub("", _TAG.sub("", plain))
    bare = _SUBJECT.sub("", bare)
    has_subject = bare != plain
    spaced = _SENTENCE_END.sub(" then ", bare.strip(" .!?;"))
    words = [w.strip("'/-") for w in _NOT_WORDS.sub(" ", spaced).lower().split()]
    words = [w for w in words if w and w not in ARTICLES]
    while words and words[0] in FILLERS:
        words = words[1:]
    if not words:
        return Imperative(problem="no text")
    words = [*words[0].split("-"), *words[1:]]  # "pick-up plate"
    verb = base_verb(words[0], is_after_subject=has_subject)
    if verb is None:
        return Imperative(problem=f"begins with {words[0][:30]!r}, no verb of action")
    if len(words) > MAX_WORDS:
        return Imperative(problem=f"{len(words)} words")
    return Imperative(text=" ".join([verb, *_coordinated(words, verb)]))


def base_verb(word: str, *, is_after_subject: bool = False) -> str | None:
    """The base form of a known verb; right after a subject any "-s" is a verb's."""
    if word in MORE_VERBS:
        return word
    verb = IRREGULAR.get(word) or verb_of(word)
    if verb is not None:
        return verb
    for ending, instead in (
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("s", ""),
        ("ing", ""),
        ("ing", "e"),
    ):
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and stem in MORE_VERBS:
            return stem
    doubled = re.fullmatch(r"(\w+?)(\w)\2ing", word)  # sitting
    if doubled and doubled[1] + doubled[2] in MORE_VERBS:
        return doubled[1] + doubled[2]
    if is_after_subject and re.fullmatch(r"[a-z]{3,}[^s]s", word):
        stem = word[:-1]
        return stem[:-1] if re.search(r"(sh|ch|x|ss|zz)e$", stem) else re.sub(r"ie$", "y", stem)
    return None


def _coordinated(words: list[str], verb: str) -> list[str]:
    """The words after the first; where that one was inflected, verbs after "and" and "then" of the same ending lose it too."""
    rest = words[1:]
    ending = "ing" if words[0].endswith("ing") else "s"
    if words[0] == verb or not words[0].endswith(ending):
        return rest
    for i in range(1, len(rest)):
        if rest[i - 1] in ("and", "then") and rest[i].endswith(ending):
            rest[i] = verb_of(rest[i]) or rest[i]
    return rest
