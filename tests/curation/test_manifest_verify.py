"""`manifest verify` sees every change to what a trainer reads: the page, the texts in it, and how to read the datasets it names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.manifest_folders import page_bytes
from ingest.curation.manifests.action_stats_partial import DeltaWork, EpisodeSpans, partials
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.manifest import load, load_facts, read_page
from tests.curation.manifest_cases import ask, build, invoke, policy
from tests.faults.runs import tree
from tests.ingest.verify_corpus import build_toy, data_file, dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four toy episodes and one manifest with statistics, a WHERE and a mixture."""
    root = tmp_path_factory.mktemp("verify")
    corpus = build_toy(root / "toy", root / "corpus", run_id="first")
    assert invoke("tier", str(corpus), "--policy", policy(root)).exit_code == 0
    (root / "m.yaml").write_text("by: [tier]\n")
    mixture = ("--mixture", str(root / "m.yaml"))
    assert build(corpus, "whole", "--where", "length > 1", *mixture).exit_code == 0
    return corpus


def flaws(corpus: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = ask(corpus, "verify", "whole")["flaws"]
    return found


def change_page(corpus: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = corpus / "manifests/whole/manifest.json"
    page = json.loads(path.read_text())
    change(page)
    path.write_text(json.dumps(page))
    return path.parent


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page["statistics"]["embodiments"]["umi"]["mean"].__setitem__(0, 0.5),
        lambda page: page["hours"]["all"].update(all=7.0),
        lambda page: page.update(where="length > 2"),
        lambda page: page["policy"].update(text="policy: other"),
        lambda page: page["mixture"]["groups"][0].update(epochs=2.0),
        lambda page: page.update(num_rows=5),
        lambda page: page.update(page_sha256="0" * 64),
        lambda page: page.pop("page_sha256"),
    ],
)
def test_each_change_of_the_page_is_one_fault(
    corpus: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    folder = change_page(corpus, change)
    found = [(f["fault"], f["what"]) for f in flaws(corpus) if "num_rows" not in f["message"]]
    assert found == [("page_changed", "manifests/whole/manifest.json")]
    for read in (load, load_facts):
        with pytest.raises(ConfigError, match="run `eicorpus manifest build whole`"):
            read(folder)


def test_files_without_end_are_named_and_not_held(corpus: Path) -> None:
    """Sparse ones of 300 GB: what a dataset says of itself, and the rows of an episode that statistics are made of."""
    info, data = dataset(corpus) / "meta/info.json", data_file(corpus)
    os.truncate(info, 300 << 30)
    [flaw] = [f for f in flaws(corpus) if f["what"].endswith("info.json")]
    assert (flaw["fault"], "bytes; expected at most" in flaw["message"]) == (
        "file_unreadable",
        True,
    )
    os.truncate(data, 300 << 30)
    relative = data.relative_to(corpus).as_posix()
    episode = EpisodeSpans(uid="a", path=relative, data_sha256="", length=1, spans=((0, 1),))
    work = DeltaWork(corpus=str(corpus), names=((),) * 4, episodes=(episode,), block=("", 0))
    [error] = partials(work, LocalStorage()).errors
    assert "too_large" in error


def test_layout_and_the_order_of_keys_are_no_content(corpus: Path) -> None:
    folder = corpus / "manifests/whole"
    page = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(page.items()))))
    assert flaws(corpus) == []
    assert len(load(folder)) == 4


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"num_rows": 5}, "num_rows in manifest.json is 5; the file has 4 rows"),
        ({"policy": {"digest": "0" * 16}}, "policy.text has digest "),
        ({"mixture": {"text": "by: [source]\n"}}, "mixture.text has digest "),
    ],
)
def test_a_page_with_a_digest_that_fits_is_compared_with_its_parts(
    corpus: Path, update: dict[str, Any], said: str
) -> None:
    folder = corpus / "manifests/whole"
    facts = load_facts(folder)
    parts = {
        name: getattr(facts, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in update.items()
    }
    (folder / "manifest.json").write_bytes(page_bytes(facts.model_copy(update=parts)))
    assert read_page(folder)[1] == ""
    [flaw] = flaws(corpus)
    assert (flaw["fault"], flaw["what"]) == ("page_changed", "manifests/whole/manifest.json")
    assert flaw["message"].startswith(said)
    if "num_rows" in update:
        with pytest.raises(ConfigError, match="num_rows"):
            load(folder)


def test_a_policy_of_another_version_is_a_note(corpus: Path) -> None:
    folder = corpus / "manifests/whole"
    facts = load_facts(folder)
    text = "policy: of a time to come\n"
    facts = facts.model_copy(update={"policy": facts.policy.model_copy(update={"text": text})})
    (folder / "manifest.json").write_bytes(page_bytes(facts))
    found = ask(corpus, "verify", "whole")
    assert found["ok"]
    assert found["notes"][0].startswith("policy.text cannot be read on this machine")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("info.json", "left", "right", "features.action.names[0] is '\"right"),
        ("info.json", '"fps": 10', '"fps": 20', "fps is '20'; the catalog states '10'"),
        ("modality.json", '"end": 3', '"end": 4', ".end is '4'; the catalog states '3'"),
        ("eicorpus.json", "absolute", "relative", "vector_kind"),
    ],
)
def test_what_names_the_columns_is_compared_with_the_catalog(
    corpus: Path, name: str, old: str, new: str, said: str
) -> None:
    path = dataset(corpus) / "meta" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    [flaw] = flaws(corpus)
    assert (flaw["fault"], flaw["what"]) == ("meta_changed", str(path.relative_to(corpus)))
    assert said in flaw["message"]
    assert "eicorpus ingest" in flaw["message"]


def test_a_missing_or_damaged_info_is_told(corpus: Path) -> None:
    (dataset(corpus) / "meta/info.json").unlink()
    (dataset(corpus) / "meta/modality.json").write_text("[1]")
    assert [f["fault"] for f in flaws(corpus)] == ["file_missing", "file_unreadable"]


@pytest.mark.slow
def test_a_comment_makes_no_other_manifest(corpus: Path, tmp_path: Path) -> None:
    before = tree(corpus / "manifests")
    commented = tmp_path / "p.yaml"
    commented.write_text(f"# why\n{Path(policy(tmp_path)).read_text()}")
    (tmp_path / "m.yaml").write_text("# and why\nby: [tier]\n")
    words = ("--where", "length > 1", "--mixture", str(tmp_path / "m.yaml"))
    again = build(corpus, "whole", "--policy", str(commented), *words)
    assert again.exit_code == 0, again.exception
    assert "unchanged: " in again.stdout
    assert tree(corpus / "manifests") == before
    other = build(corpus, "whole", "--policy", policy(tmp_path, above=0.95), *words)
    assert "differs in policy" in str(other.exception)


def test_forget_does_not_give_a_changed_page_a_digest_that_fits(corpus: Path) -> None:
    uid = load(corpus / "manifests/whole").row(0).uid
    change_page(corpus, lambda page: page.update(where="true"))
    before = tree(corpus)
    refused = invoke("forget", str(corpus), uid)
    assert isinstance(refused.exception, ConfigError)
    assert "manifest build whole" in str(refused.exception)
    assert tree(corpus) == before


def test_a_forgotten_row_is_no_wrong_number_of_rows(corpus: Path) -> None:
    uid = load(corpus / "manifests/whole").row(0).uid
    assert invoke("forget", str(corpus), uid).exit_code == 0
    assert [(f["fault"], f["what"]) for f in flaws(corpus)] == [("forgotten", uid)]
    assert load_facts(corpus / "manifests/whole").num_rows == 4
