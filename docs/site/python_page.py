"""The page of what `eicorpus.Corpus` and its episodes and manifests have, from their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from docs.site.markdown import code, page, paragraphs, table
from jobs.python_api.corpus import Corpus, CorpusManifest
from jobs.python_api.episode import CorpusEpisode

# How a program comes to one -> its class.
OBJECTS: dict[str, type[Any]] = {
    "Corpus.open(path)": Corpus,
    "corpus.episode(uid)": CorpusEpisode,
    "corpus.manifest(name)": CorpusManifest,
}
ABOUT = "`from eicorpus import Corpus`; [how to](../how-to/python.md). Errors are `eicorpus.ConfigError` and `eicorpus.SourceError`."


def python_page() -> str:
    parts = []
    for origin, each in OBJECTS.items():
        rows = [[code(name), text] for name, text in members(each)]
        parts += [f"## {origin}", paragraphs(each.__doc__ or ""), table(["name", ""], rows)]
    return page("# Python interface", ABOUT, *parts)


def members(each: type[Any]) -> Iterator[tuple[str, str]]:
    """Public methods with their parameters, and properties; the first paragraph of each docstring."""
    for name in sorted(n for n in dir(each) if not n.startswith("_")):
        member = inspect.getattr_static(each, name)
        function = member.__func__ if isinstance(member, classmethod) else member
        is_property = isinstance(member, property | cached_property)
        if is_property or inspect.isfunction(function):
            text = paragraphs(function.__doc__ or "").partition("\n\n")[0]
            yield name if is_property else f"{name}({arguments(function)})", text


def arguments(function: Any) -> str:
    """Names alone; a default is shown as `=`."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names, is_keyword = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not is_keyword:
            names.append("*")
            is_keyword = True
        names.append(each.name if each.default is each.empty else f"{each.name}=")
    return ", ".join(names)
