"""A tier policy as SQL over one row a segment.

The frame it reads (ingest/curation/tiers/tier.py makes it) has the columns `row`, `start`, `end`, `supervises` (bits of `TASK_BITS`), and one for
each fact and measurement that the policy names, as `column_name` calls them. NULL is unknown, and SQL's own logic of three values does
the rest: a rule holds when its condition is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ingest.catalog.views import identifier, literal
from ingest.curation.tiers.policy import TASKS, Condition, Edge, QualityPolicy, Tier
from ingest.curation.tiers.policy_fields import REVIEW_FACTS, always_measured
from schemas.supervision import Task

TASK_BITS: dict[Task, int] = {task: 1 << index for index, task in enumerate(Task)}
TIERS = tuple(Tier)  # the number of a tier in SQL is its place here: the worse, the higher
_WORDS = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
# What an episode carries, as the best tier it allows: in this order, the first whose task it supervises.
_CAPS = (
    (Task.POLICY, Tier.HIGH),
    (Task.FORWARD_DYNAMICS, Tier.LOW),
    (Task.INVERSE_DYNAMICS, Tier.LOW),
    (Task.VISUAL_FORECASTING, Tier.ACTIONLESS),
)
CAP_CODE = "supervision_limit"
CAP_TEXT = {
    Tier.LOW: "the facts of the episode do not carry the policy task",
    Tier.ACTIONLESS: "the facts of the episode carry no actions",
    Tier.EXCLUDED: "the facts of the episode carry nothing that can be taught",
}
REVIEW_CODE = "review"
REVIEW_TIER = "review decision"  # number of the tier that a person gave; NULL for none
REVIEW_AUTHOR = "review author"
UNMEASURED = "unmeasured"  # the fact; the frame has the place of the first such name beside it
FIRST_UNMEASURED = "first unmeasured"  # from 1 in the names of `required`; 0 for none
REASON_TYPE = 'STRUCT(code VARCHAR, "text" VARCHAR, "value" DOUBLE, threshold DOUBLE)[]'


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Expressions over the frame."""

    rules: tuple[str, ...]  # a truth value each, in the order of the policy
    rule: str  # number of the rule that decides; the number of rules where none holds
    tier: str  # number of the tier, over `rule` and `supervises`
    cap: str
    tasks: str  # list of task names, over `tier` and `supervises`
    reasons: str  # over `rule`, `tier` and the frame


def compiled(policy: QualityPolicy, *, is_reviewed: bool = False) -> Compiled:
    """The policy's SQL. Its names are checked and its texts quoted, so that nothing in it is more than a value.

    Args:
        is_reviewed: the frame has reviews, which decide before the rules.
    """
    whens = tuple(truth(policy, rule.when) for rule in policy.rules)
    cases = " ".join(f"WHEN {when} THEN {index}" for index, when in enumerate(whens))
    tiers = [*(rule.tier for rule in policy.rules), policy.otherwise.tier]
    tiers_of_rules = " ".join(
        f"WHEN {index} THEN {TIERS.index(tier)}" for index, tier in enumerate(tiers)
    )
    caps = " ".join(
        f"WHEN (supervises & {TASK_BITS[task]}) <> 0 THEN {TIERS.index(tier)}"
        for task, tier in _CAPS
    )
    cap = f"CASE {caps} ELSE {TIERS.index(Tier.EXCLUDED)} END"
    by_rule = f"CASE rule {tiers_of_rules} END"
    reasons, decided = _reasons(policy, whens, by_rule, cap), by_rule
    if is_reviewed:
        decision = identifier(REVIEW_TIER)
        decided = f"coalesce({decision}, {by_rule})"
        reasons = f"CASE WHEN {decision} IS NULL THEN {reasons} ELSE {_by_review(decision)} END"
    return Compiled(
        rules=whens,
        rule=f"CASE {cases} ELSE {len(whens)} END",
        tier=f"greatest({decided}, {cap})",
        cap=cap,
        tasks=_tasks(),
        reasons=reasons,
    )


def overrides(policy: QualityPolicy) -> bool:
    """Whether a person's tier or exclusion wins over the rules: always, unless a condition of the policy names a fact of reviews."""
    facts, _, _ = used(policy)
    return facts.isdisjoint(REVIEW_FACTS)


def used(policy: QualityPolicy) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Names of the facts, of the measurements of episodes, and of those of stretches, edges included."""
    leaves = [condition for _, condition in policy.all_conditions() if condition.name is not None]
    facts = {leaf.fact for leaf in leaves if leaf.fact is not None}
    whole = {leaf.measurement for leaf in leaves if leaf.measurement is not None and not leaf.of}
    stretches = {leaf.measurement for leaf in leaves if leaf.measurement is not None and leaf.of}
    edges = {edge.measurement for edge in policy.segments.edges if edge.measurement is not None}
    return frozenset(facts), frozenset(whole), frozenset(stretches | edges)


def required(policy: QualityPolicy) -> tuple[str, ...]:
    """The names that the fact `unmeasured` counts, in order; none when the policy does not ask for it."""
    leaves = [condition for _, condition in policy.all_conditions()]
    if all(leaf.fact != UNMEASURED for leaf in leaves):
        return ()
    asked = {leaf.measurement for leaf in leaves if leaf.measurement is not None}
    return tuple(sorted(asked & always_measured()))


def aggregates(policy: QualityPolicy) -> frozenset[tuple[str, str]]:
    """(measurement of stretches, which number of them) that conditions ask for."""
    conditions = (condition for _, condition in policy.all_conditions())
    return frozenset((c.measurement, c.of) for c in conditions if c.measurement and c.of)


def column_name(leaf: Condition) -> str:
    """The column of the frame that a leaf compares."""
    if leaf.fact is not None:
        return "supervises" if leaf.fact == "supervises" else f"fact {leaf.fact}"
    return measurement_column(leaf.measurement or "", leaf.of)


def measurement_column(name: str, of: str | None = None) -> str:
    return f"{name} {of}" if of else name


def bounds_hold(bounds: Edge | Condition, column: str) -> str:
    """SQL of all bounds together; TRUE without any."""
    parts = [f"{column} {_WORDS[word]} {_number(v)}" for word, v in bounds.thresholds.items()]
    return " AND ".join(parts) or "TRUE"


def truth(policy: QualityPolicy, condition: Condition) -> str:
    """SQL of a condition, references written out."""
    if condition.condition is not None:
        return truth(policy, policy.conditions[condition.condition])
    if condition.not_ is not None:
        return f"(NOT {truth(policy, condition.not_)})"
    if condition.name is None:
        word = " AND " if condition.all_ is not None else " OR "
        return f"({word.join(truth(policy, part) for _, part in condition.parts)})"
    return _comparison(condition)


def _comparison(leaf: Condition) -> str:
    column = identifier(column_name(leaf))
    parts = [bounds_hold(leaf, column)] if leaf.thresholds else []
    if isinstance(leaf.is_, bool):
        parts.append(f"{column} = {str(leaf.is_).upper()}")
    elif leaf.is_ is not None:
        parts.append(f"{column} = {literal(leaf.is_)}")
    if leaf.in_ is not None:
        parts.append(f"{column} IN ({', '.join(literal(text) for text in leaf.in_)})")
    if leaf.has is not None:
        parts.append(f"({column} & {TASK_BITS[Task(leaf.has)]}) <> 0")
    if leaf.known is not None:
        parts.append(f"{column} IS {'NOT ' if leaf.known else ''}NULL")
    sql = f"({' AND '.join(parts)})"
    if leaf.when_unknown is None:
        return sql
    return f"coalesce({sql}, {str(leaf.when_unknown).upper()})"


# --- reasons ------------------------------------------------------------------------------------------------------------


def _reasons(policy: QualityPolicy, whens: tuple[str, ...], by_rule: str, by_cap: str) -> str:
    """Every comparison that made a rule of the given tier hold. A cap that is worse than the rules is the only reason.

    Where no rule holds, a cap that is the tier of `otherwise` is a reason too, and the first.
    """
    tiers = []
    for number, tier in enumerate(TIERS):
        reasons = [
            reason
            for index, rule in enumerate(policy.rules)
            if rule.tier is tier
            for reason in _of_rule(policy, index, whens[index])
        ]
        if policy.otherwise.tier is tier:
            reasons += _of_otherwise(policy, f"rule = {len(whens)}", by_cap)
        if reasons:
            tiers.append(
                f"WHEN {number} THEN list_filter([{', '.join(reasons)}], lambda r: r IS NOT NULL)"
            )
    capped = " ".join(
        f"WHEN {TIERS.index(tier)} THEN [{_struct(CAP_CODE, text)}]"
        for tier, text in CAP_TEXT.items()
    )
    by_tier = f"CASE tier {' '.join(tiers)} END"
    return f"CAST(CASE WHEN tier > {by_rule} THEN CASE tier {capped} END ELSE {by_tier} END AS {REASON_TYPE})"


def _by_review(decision: str) -> str:
    """The author, and the cap where the episode does not carry the tier that the person gave."""
    text = f"'reviewed by ' || {identifier(REVIEW_AUTHOR)}"
    who = (
        f"{{'code': {literal(REVIEW_CODE)}, 'text': {text}, "
        "'value': CAST(NULL AS DOUBLE), 'threshold': CAST(NULL AS DOUBLE)}"
    )
    capped = " ".join(
        f"WHEN {TIERS.index(tier)} THEN [{who}, {_struct(CAP_CODE, text_of_cap)}]"
        for tier, text_of_cap in CAP_TEXT.items()
    )
    both = f"CASE tier {capped} END"
    return f"CAST(CASE WHEN tier > {decision} THEN {both} ELSE [{who}] END AS {REASON_TYPE})"


def _of_otherwise(policy: QualityPolicy, decides: str, cap: str) -> Iterator[str]:
    """The cap where it is that very tier; and what `otherwise` says, unless all was measured and the cap says enough."""
    own = policy.otherwise
    names = required(policy)
    plain, says = _struct(own.code, own.text), decides
    if own.tier in CAP_TEXT:
        is_capped = f"{cap} = {TIERS.index(own.tier)}"
        capped = _struct(CAP_CODE, CAP_TEXT[own.tier])
        yield f"CASE WHEN {decides} AND {is_capped} THEN {capped} END"
        if names:
            fact = identifier(f"fact {UNMEASURED}")
            says = f"{decides} AND NOT ({is_capped} AND {fact} = 0)"
    if names:
        is_lacking = f"{identifier(f'fact {UNMEASURED}')} > 0"
        plain = f"CASE WHEN {is_lacking} THEN {_unmeasured_text(policy, names)} ELSE {plain} END"
    yield f"CASE WHEN {says} THEN {plain} END"


def _unmeasured_text(policy: QualityPolicy, names: tuple[str, ...]) -> str:
    """`otherwise` with how many of the names were never measured, and the first of them."""
    count = identifier(f"fact {UNMEASURED}")
    listed = ", ".join(literal(name) for name in names)
    before = literal(f"{policy.otherwise.text}: ")
    after = literal(f" of {len(names)} measurements never taken: ")
    first = f"[{listed}][{identifier(FIRST_UNMEASURED)}]"
    more = f"CASE WHEN {count} > 1 THEN ', ...' ELSE '' END"
    sentence = f"{before} || CAST({count} AS VARCHAR) || {after} || {first} || {more}"
    return (
        f"{{'code': {literal(policy.otherwise.code)}, 'text': {sentence}, "
        f"'value': CAST({count} AS DOUBLE), 'threshold': CAST(0 AS DOUBLE)}}"
    )


def _of_rule(policy: QualityPolicy, index: int, when: str) -> Iterator[str]:
    rule = policy.rules[index]
    seen = set()
    for guards, leaf, is_negated in _leaves(policy, rule.when, (), is_negated=False):
        sql = _comparison(leaf)
        words = f"not ({_words(leaf)})" if is_negated else _words(leaf)
        reason = _struct(rule.code, f"{rule.text}: {words}", leaf)
        holds = " AND ".join([when, *guards, f"(NOT {sql})" if is_negated else sql])
        if (line := f"CASE WHEN {holds} THEN {reason} END") not in seen:
            seen.add(line)
            yield line


def _leaves(
    policy: QualityPolicy, condition: Condition, guards: tuple[str, ...], *, is_negated: bool
) -> Iterator[tuple[tuple[str, ...], Condition, bool]]:
    """Comparisons with what must hold around them: of an `any` only the branches that hold are reasons."""
    if condition.condition is not None:
        inner = policy.conditions[condition.condition]
        yield from _leaves(policy, inner, guards, is_negated=is_negated)
    elif condition.name is not None:
        yield guards, condition, is_negated
    else:
        flips = condition.not_ is not None
        is_choice = not flips and (condition.any_ is not None) != is_negated
        for _, part in condition.parts:
            branch = truth(policy, part)
            held = (
                (f"(NOT {branch})" if is_negated else branch,) if is_choice and part.parts else ()
            )
            yield from _leaves(policy, part, (*guards, *held), is_negated=is_negated != flips)


def _words(leaf: Condition) -> str:
    """A comparison for people."""
    words = [f"{word} {value:g}" for word, value in leaf.thresholds.items()]
    words += [f"is {str(leaf.is_).lower() if isinstance(leaf.is_, bool) else leaf.is_}"] * (
        leaf.is_ is not None
    )
    words += [f"in {', '.join(leaf.in_)}"] if leaf.in_ is not None else []
    words += [f"has {leaf.has}"] if leaf.has is not None else []
    words += [f"is {'' if leaf.known else 'un'}known"] if leaf.known is not None else []
    subject = f"{leaf.of} of {leaf.name}" if leaf.of else leaf.name
    return f"{subject} {' and '.join(words)}"


def _struct(code: str, text: str, leaf: Condition | None = None) -> str:
    value = threshold = "NULL"
    if leaf is not None and leaf.thresholds:
        value = identifier(column_name(leaf))
        threshold = _number(next(iter(leaf.thresholds.values())))
    return (
        f"{{'code': {literal(code)}, 'text': {literal(text)}, "
        f"'value': CAST({value} AS DOUBLE), 'threshold': CAST({threshold} AS DOUBLE)}}"
    )


def _tasks() -> str:
    """The tasks of the tier that the episode supervises."""
    cases = []
    for number, tier in enumerate(TIERS):
        parts = [
            f"CASE WHEN (supervises & {TASK_BITS[task]}) <> 0 THEN {literal(task.value)} END"
            for task in TASKS[tier]
        ]
        cases.append(
            f"WHEN {number} THEN list_filter([{', '.join(parts)}]::VARCHAR[], lambda t: t IS NOT NULL)"
        )
    return f"CASE tier {' '.join(cases)} END"


def _number(value: float) -> str:
    return f"CAST('{value!r}' AS DOUBLE)"
