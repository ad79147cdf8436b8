"""`eicorpus demo`: what it may delete, and what a failing step does. That its steps work is what `make demo` shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.build.spec_file import read_spec
from jobs.demo import command as demo
from schemas.errors import ConfigError


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("months of work")
    with pytest.raises(ConfigError, match="not the output of an earlier demo") as error:
        demo.claim(tmp_path)
    assert error.value.exit_code == 2
    assert (tmp_path / "thesis.tex").read_text() == "months of work"


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "demo"
    target.write_text("a file")
    with pytest.raises(ConfigError, match="choose a new folder"):
        demo.claim(target)
    assert target.read_text() == "a file"


def test_a_demo_replaces_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "demo"
    demo.claim(target)
    (target / "corpus").mkdir()
    demo.claim(target)
    assert [path.name for path in target.iterdir()] == [demo.MARKER]


def test_a_failing_step_ends_the_demo_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def steps(out: Path) -> list[demo.DemoStep]:
        missing = str(tmp_path / "absent")
        return [
            demo.DemoStep(title="fails", commands=(("verify", missing),)),
            demo.DemoStep(title="never starts", commands=(("list", "sources"),)),
        ]

    monkeypatch.setattr(demo, "steps", steps)
    with pytest.raises(demo.DemoFailed, match=r"exit code 2.*") as error:
        demo.command(out=tmp_path / "demo", as_json=False)
    assert error.value.exit_code == 1
    printed = capfd.readouterr()
    assert "[1/2] fails" in printed.err
    assert "never starts" not in printed.err + printed.out


def test_without_torch_the_caller_reads_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'eicorpus\[train\]'"):
        demo.command(out=tmp_path / "demo", as_json=False)
    assert list(tmp_path.iterdir()) == []


def test_the_spec_of_the_demo_has_its_sources_and_can_be_read(tmp_path: Path) -> None:
    generate = next(iter(demo.steps(tmp_path))).prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "raw_of", lambda name, folder: folder.mkdir(parents=True))
        generate()
    file = read_spec(tmp_path / "corpus.yaml")
    assert {name: each.adapter for name, each in file.spec.sources.items()} == {
        name: name for name in demo.SOURCES
    }
    assert file.corpus == tmp_path / "corpus"
    assert f"manifests.{demo.MANIFEST}" in file.needs


@pytest.mark.slow
def test_every_source_of_the_demo_can_be_generated(tmp_path: Path) -> None:
    for name in demo.SOURCES:
        written = demo.raw_of(name, tmp_path / name)
        assert written.root == tmp_path / name  # what the command of its step names
        assert not written.options  # which that command does not give
