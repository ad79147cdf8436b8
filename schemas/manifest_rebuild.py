"""The command that builds a manifest anew under another name, with the options that its page records."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from schemas.manifest import ManifestFacts
from schemas.split import DEFAULT_SHARES

MIXTURE_FILE = "MIXTURE.yaml"  # the page keeps the text of a mixture, and not where it was


def rebuild_command(facts: ManifestFacts, corpus: Path, *, name: str) -> str:
    """`eicorpus manifest build CORPUS NAME ...`, to be pasted.

    Options at their defaults are left out. The tier policy is the one that `eicorpus tier` applied last.
    """
    split = facts.split
    options = {
        "--where": facts.where,
        "--mixture": MIXTURE_FILE if facts.mixture.text else "",
        "--split-by": "" if split.by == "auto" else split.by,
        "--val": "" if split.val == DEFAULT_SHARES.val else str(split.val),
        "--test": "" if split.test == DEFAULT_SHARES.test else str(split.test),
        "--text": "" if facts.text_policy == "best" else facts.text_policy,
    }
    words = ["eicorpus", "manifest", "build", str(corpus), name]
    words += [word for option, value in options.items() if value for word in (option, value)]
    words += [] if split.keeps_source_splits else ["--ignore-source-splits"]
    return " ".join(map(quote, words))
