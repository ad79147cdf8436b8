"""Does the page of a manifest say what it was published with, and do the texts in it have the digests that it names?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ingest.curation.manifests.issue import Issue, IssueKind
from ingest.curation.manifests.mixture_text import mixture_from
from ingest.curation.tiers.policy import policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from schemas.errors import ConfigError
from schemas.manifest import FACTS_FILE, FOLDER, ManifestFacts, how_to_mend


def page_flaws(facts: ManifestFacts, odd_page: str, odd_num_rows: str) -> Iterator[Issue]:
    """`odd_*`: what `read_page` and `odd_num_rows` say. A changed page is told once: its texts are not looked at."""
    texts = {} if odd_page else _by_text(facts)
    odd = [
        f"{name} {difference}"
        for name, (difference, is_read) in texts.items()
        if difference and is_read
    ]
    for message in filter(None, [odd_page, odd_num_rows, *odd]):
        problem = f"{message}; {how_to_mend(facts.name)}"
        what = f"{FOLDER}/{facts.name}/{FACTS_FILE}"
        yield Issue(what=what, fault=IssueKind.PAGE_CHANGED, message=problem)


def unread_notes(facts: ManifestFacts) -> list[str]:
    """Texts of another version of the program, which have no digest here."""
    return [f"{name} {note}" for name, (note, is_read) in _by_text(facts).items() if not is_read]


def _by_text(facts: ManifestFacts) -> dict[str, tuple[str, bool]]:
    """What is wrong with each text, or "", and whether it could be read at all."""
    policy, mixture = facts.policy, facts.mixture
    return {
        "policy.text": _compared(policy.digest, lambda: _policy_digest(policy.name, policy.text)),
        "mixture.text": _compared(
            mixture.digest, lambda: mixture_from(mixture.text, "mixture.text").digest
        ),
    }


def _policy_digest(name: str, text: str) -> str:
    return policy_from(parse_policy_text(text, name)).digest


def _compared(stated: str, digest: Callable[[], str]) -> tuple[str, bool]:
    try:
        actual = digest()
    except ConfigError as error:
        return f"cannot be read here, so its digest was not compared: {error}", False
    return ("" if actual == stated else f"has the digest {actual}, the page says {stated}"), True
