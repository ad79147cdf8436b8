"""Does a caption deserve belief? The nine checks of captioning.md §3, each a function with a verdict: pass, fail, or not measurable.

1 form, 2 times, 3 cross_pass, 4 source_agreement, 5 hand_agreement judge one caption; 6 self_consistency several answers about one segment;
7 negative_controls and 8 collapse a run; 9 audit_accuracy what people found. A check that fails never removes a caption: its name stands
beside it, and the choice of a text goes by that (choose.py). Thresholds are captioning.md's unless said otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ingest.check import Verdict
from ingest.curation.captions.answers import Description, Instruction
from ingest.curation.captions.imperative import base_verb, imperative
from ingest.curation.measurements.english import FUNCTION_WORDS, is_english, verb_of, words_of

MAX_WORDS, MAX_LETTERS = 20, 30
BANNED = frozenset(
    words_of(
        "video videos frame frames camera footage image picture person robot seems appears maybe possibly probably perhaps"
    )
)
REPEATS = 4  # the same word or pair of words in a row: a model that is stuck (our choice)
TIME_SLACK_S = 0.5  # times are read off a contact sheet of two frames a second (our choice)
AGREEING_SAMPLES = 2 / 3
HAND_SEEN, HAND_ABSENT = 0.5, 0.1  # shares of valid timesteps (our choice)
MAX_FALSE_OK = 0.1  # of the controls (our choice)
MAX_TOP_SHARE, MIN_TEXTS = 0.1, 50  # fewer captions tell nothing about collapse (our choice)
AUDIT_MIN = (
    0.8  # lower bound of the accuracy that people find (our choice; VITRA reports about 0.9)
)

# Words that say which of several things is meant, not what it is.
QUALITIES = frozenset(
    words_of(
        "red green blue yellow orange purple pink brown black white grey gray silver small large big little long short round "
        "square metal wooden plastic other first second"
    )
)

# What a source says where it does not say of what ("Putting [something] on [something]", Something-Something).
UNNAMED = frozenset(words_of("something object objects item items thing things stuff it them"))

# Verbs that name one action in one source or another; after Ego4D's taxonomy groups, "take_(pick,_grab,_get)" (captioning.md §3, 4).
SAME_VERBS = (
    {"take", "pick", "grab", "get", "grasp", "fetch", "lift", "collect", "retrieve", "remove"},
    {"put", "place", "set", "insert", "leave", "drop", "lay", "stack", "position", "return", "move"},
    {"move", "push", "slide", "pull", "drag", "shift", "transfer", "carry", "bring"},
    {"open", "unscrew", "unlock", "uncover", "unfold", "unzip", "unwrap"},
    {"close", "shut", "cover", "screw", "lock", "fold", "zip", "wrap"},
    {"turn", "rotate", "twist", "flip", "spin", "roll", "tilt"},
    {"cut", "slice", "chop", "trim", "split", "divide"},
    {"wash", "rinse", "clean", "scrub", "wipe"},
    {"mix", "stir", "blend", "whisk", "combine", "shake"},
    {"hold", "keep", "grip", "grasp", "handle"},
    {"press", "push", "click", "tap", "touch", "switch", "toggle"},
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """`why` is one plain sentence; of a failing check it is the complaint."""

    name: str
    verdict: Verdict
    why: str = ""

    @property
    def has_failed(self) -> bool:
        return self.verdict is Verdict.FAIL


def _verdict(name: str, complaints: Iterable[str]) -> CheckResult:
    why = "; ".join(complaints)
    return CheckResult(name=name, verdict=Verdict.FAIL if why else Verdict.PASS, why=why)


def _silent(name: str, why: str) -> CheckResult:
    return CheckResult(name=name, verdict=Verdict.NOT_MEASURABLE, why=why)


@lru_cache(maxsize=1 << 14)
def form(text: str) -> CheckResult:
    """1: an English imperative of at most 20 words, no word about the recording, no word again and again."""
    words = words_of(text)
    complaints = []
    if not 2 <= len(words) <= MAX_WORDS:
        complaints.append(f"{len(words)} words")
    if words and base_verb(words[0]) != words[0]:
        complaints.append(f"begins with {words[0]!r}, no verb in its base form")
    if banned := sorted(BANNED & set(words)):
        complaints.append(f"says {', '.join(banned)}")
    if is_english(text) is False:
        complaints.append("not English")
    if any(len(word) > MAX_LETTERS for word in words):
        complaints.append("a word that is none")
    if _is_stuck(words):
        complaints.append("repeats itself")
    return _verdict("form", complaints)


def _is_stuck(words: Sequence[str]) -> bool:
    return any(
        len({tuple(words[i + k * n : i + (k + 1) * n]) for k in range(REPEATS)}) == 1
        for n in (1, 2, 3)
        for i in range(len(words) - REPEATS * n + 1)
    )


def times(
    description: Description | None, instruction: Instruction, duration_s: float
) -> CheckResult:
    """2: every event inside the segment, with its start before its end; events in order; evidence inside."""
    if description is None:
        return _silent("times", "no description")
    low, high = -TIME_SLACK_S, duration_s + TIME_SLACK_S
    complaints = [
        f"event {e.start_s:g} to {e.end_s:g} s"
        for e in description.events
        if not (low <= e.start_s < e.end_s <= high)
    ]
    starts = [e.start_s for e in description.events]
    complaints += ["events out of order"] if starts != sorted(starts) else []
    outside = [t for t in instruction.evidence_s if not low <= t <= high]
    complaints += [f"evidence at {t:g} s of {duration_s:g} s" for t in outside]
    return _verdict("times", complaints)


def cross_pass(description: Description | None, instruction: Instruction) -> CheckResult:
    """3: the verb and the object of the instruction occur in the description."""
    if description is None:
        return _silent("cross_pass", "no description")
    described = " ".join(
        [*description.objects, *(f"{e.action} {e.object}" for e in description.events)]
    )
    complaints = []
    if not _shares_noun(instruction.object, described):
        complaints.append(f"unsupported_object: {instruction.object or 'none'!r} is not described")
    verbs = {v for word in words_of(described) if (v := base_verb(word))}
    verb = next((v for word in words_of(instruction.verb) if (v := base_verb(word))), None)
    if verb is None or not any(_same_verb(verb, other) for other in verbs):
        complaints.append(f"unsupported_verb: {instruction.verb or 'none'!r} is not described")
    return _verdict("cross_pass", complaints)


def source_agreement(instruction: Instruction, texts: Sequence[str]) -> CheckResult:
    """4: the source's verb and one of its nouns, or words for the same, occur in the instruction.

    Without an English source text there is nothing to agree with.
    """
    sources = [one.text for text in texts if not (one := imperative(text)).problem]
    if not sources:
        return _silent("source_agreement", "no English source text")
    complaints = [_disagreement(instruction, source) for source in sources]
    return _verdict("source_agreement", [] if "" in complaints else complaints[-1:])


def _disagreement(instruction: Instruction, source: str) -> str:
    """ "" when the instruction can be the same thing said otherwise."""
    text = f"{instruction.instruction} {instruction.verb} {instruction.object}"
    verbs = {v for word in words_of(text) if (v := base_verb(word))}
    first, *rest = words_of(source)
    # "pick up cup and put it on shelf" may be called either
    firsts = [first, *(w for before, w in pairwise(rest) if before in ("and", "then"))]
    if not any(_same_verb(one, verb) for one in firsts for verb in verbs):
        return f"the source says {source[:80]!r}, another action"
    nouns = {_singular(w) for w in rest if _is_noun(w)}
    if nouns and not nouns & {_singular(w) for w in words_of(text)}:
        return f"the source says {source[:80]!r}, of other things"
    return ""


def hand_agreement(
    description: Description | None, instruction: Instruction, shares: Mapping[str, float]
) -> CheckResult:
    """5: the hands in the text are the hands that were tracked. `shares`: side -> share of timesteps with a valid hand.

    Weak evidence: trackers swap sides (hoi_filter.md).
    """
    if description is None or not shares:
        return _silent("hand_agreement", "no tracked hands")
    named = {"both": {"left", "right"}, "none": set()}.get(
        description.visible_hands, {description.visible_hands}
    )
    named |= {s for s, text in (("left", instruction.left), ("right", instruction.right)) if text}
    complaints = [
        f"the {side} hand is told of, but tracked in {shares.get(side, 0.0):.0%} of the time"
        for side in sorted(named)
        if shares.get(side, 0.0) < HAND_ABSENT
    ]
    if not named and (seen := sorted(s for s, share in shares.items() if share >= HAND_SEEN)):
        complaints.append(f"no hand is told of, but tracked: {', '.join(seen)}")
    return _verdict("hand_agreement", complaints)


def self_consistency(samples: Sequence[Instruction | None]) -> CheckResult:
    """6: two of three answers name the same action on the same thing. None: an answer that was none."""
    if len(samples) < 2:
        return _silent("self_consistency", "one answer only")
    names = Counter(_gist(sample) for sample in samples)
    top, count = names.most_common(1)[0]
    if count / len(samples) >= AGREEING_SAMPLES and top:
        return _verdict("self_consistency", [])
    return _verdict("self_consistency", [f"{len(names)} different answers of {len(samples)}"])


def _gist(sample: Instruction | None) -> tuple[str, ...]:
    if sample is None:
        return ()
    if sample.status != "ok":
        return (sample.status,)
    verb = next((v for w in words_of(sample.verb) if (v := base_verb(w))), sample.verb.lower())
    group = next((min(group) for group in SAME_VERBS if verb in group), verb)
    noun = [_singular(w) for w in words_of(sample.object) if w not in FUNCTION_WORDS]
    return (group, noun[-1] if noun else "")  # the last noun is the thing: "red cup"


def negative_controls(false_ok: Mapping[str, tuple[int, int]]) -> CheckResult:
    """7: with wrong pictures nothing is captioned. `false_ok`: kind of control -> (asked, called ok all the same)."""
    asked = {kind: counts for kind, counts in false_ok.items() if counts[0]}
    if not asked:
        return _silent("negative_controls", "none were made")
    return _verdict(
        "negative_controls",
        [
            f"{kind}: {wrong} of {count} captioned all the same"
            for kind, (count, wrong) in sorted(asked.items())
            if wrong / count > MAX_FALSE_OK
        ],
    )


def collapse(texts: Counter[str], source_texts: Counter[str]) -> CheckResult:
    """8: no text makes up more than a tenth of a source's captions, unless the source itself says the same that often."""
    total = texts.total()
    if total < MIN_TEXTS:
        return _silent("collapse", f"{total} captions only")
    top, count = texts.most_common(1)[0]
    share = count / total
    own = source_texts.most_common(1)
    # of all captions: five equal labels in a thousand segments are no reason for a thousand equal captions
    own_share = own[0][1] / total if own else 0.0
    if share <= max(MAX_TOP_SHARE, own_share * 1.1):
        return _verdict("collapse", [])
    words: Counter[str] = Counter()
    for text, times_said in texts.items():
        for word in words_of(text):
            words[word] += times_said
    ratio = len(words) / max(words.total(), 1)
    return _verdict(
        "collapse", [f"{share:.0%} of the captions are {top[:80]!r}; type/token ratio {ratio:.3f}"]
    )


def audit_accuracy(correct: int, total: int) -> CheckResult:
    """9: people agree with enough of a random sample; judged by the lower end of the 95 % interval."""
    if not total:
        return _silent("audit_accuracy", "nothing was audited")
    low, high = wilson(correct, total)
    why = f"{correct} of {total} correct, 95 % interval {low:.2f} to {high:.2f}"
    verdict = Verdict.PASS if low >= AUDIT_MIN else Verdict.FAIL
    return CheckResult(name="audit_accuracy", verdict=verdict, why=why)


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson 1927)."""
    p = correct / total
    scale = 1 + z * z / total
    middle = (p + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _same_verb(one: str, other: str) -> bool:
    return one == other or any(one in group and other in group for group in SAME_VERBS)


def _is_noun(word: str) -> bool:
    is_side = word in ("hand", "hands", "left")  # a hand is no object
    if word in UNNAMED:
        return False
    is_small = word in FUNCTION_WORDS or word in QUALITIES or len(word) < 2
    return not is_side and not is_small and verb_of(word) is None


def _shares_noun(name: str, text: str) -> bool:
    """The last noun of a name is the thing: a red bowl is no red cup."""
    nouns = [_singular(w) for w in words_of(name) if w not in FUNCTION_WORDS and len(w) > 1]
    return bool(nouns) and nouns[-1] in {_singular(w) for w in words_of(text)}


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "xes", "sses", "oes")):
        return word[:-2]
    if word.endswith("ves") and len(word) > 4:
        return f"{word[:-3]}f"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) else word
