"""The benchmark of a training step runs the loop, the loader and the log of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import gpu_kernels, result, step_case, train_step
from benchmarks.gpu_kernels import Kernel
from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.step_case import Case, batch_that_fits, host_batches, recipe_of
from benchmarks.step_counts import arithmetic
from benchmarks.train_step import measured
from tests.training.corpus import NUM_PATCHES, Trainable, make
from tests.training.corpus import WIDTH as LATENT_WIDTH
from training.model.settings import Architecture
from training.recipe import TrainRecipe

SMALL = Architecture(width=16, num_layers=1, num_heads=2, num_registers=2, adapter_width=4)


def test_the_gradient_of_frozen_text_is_what_was_counted_elsewhere() -> None:
    """6.7 % of a step of lda_1b at 200 tokens, all of it in products that make gradients."""
    gflop = arithmetic()
    assert gflop["all_before"] / gflop["all"] == pytest.approx(1.067, abs=0.002)
    assert gflop["mm_before"] > gflop["mm"]
    assert gflop["bmm_before"] == gflop["bmm"]
    assert gflop["all"] == pytest.approx(
        sum(n for name, n in gflop.items() if not name.endswith("_before") and name != "all"),
        abs=0.05,
    )


def test_counts_print_a_table_that_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "counted_of", lambda: {"launches_batch_8": 7, "kept_all": 60.4})
    told = CliRunner().invoke(_app(), ["--counts"]).stdout
    assert "launches" in told
    assert "batch_8" in told
    assert "not measured on a GPU" in told
    (machine, figures) = (
        json.loads(CliRunner().invoke(_app(), ["--counts", "--json"]).stdout)[key]
        for key in ("machine", "figures")
    )
    assert machine["cores"]
    assert figures == {"launches_batch_8": 7, "kept_all": 60.4}


def _app() -> train_step.typer.Typer:
    app = train_step.typer.Typer()
    app.command()(train_step.main)
    return app


def _cases() -> dict[str, Case]:
    case = Case(architecture=SMALL, device="cpu", batch_size=8, num_steps=1)
    return {
        "fp32": replace(case, precision="fp32"),
        "bf16": case,
        "bf16_compiled": replace(case, is_compiled=True),
        "bf16_checkpointed": replace(case, checkpointed=True),
    }


def test_a_case_that_fails_is_named_and_the_others_have_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Too little memory of a GPU, a kernel that is not there, a profile of nothing, and a process that the system killed."""

    def measured(case: Case) -> dict[str, Any]:
        if case.precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd so on")
        if case.is_compiled:
            raise RuntimeError("no such kernel")
        return {"step_s": 2.0, "mfu_ratio": 0.5, "batch_size": case.batch_size, "gpu_launches": 0}

    def in_own_process(work: Any, stand_in: Any, case: Case) -> Any:
        if case.checkpointed:
            raise SystemExit("measured was killed: out of memory?")
        return work(stand_in, case)

    monkeypatch.setattr(train_step, "measured", measured)
    monkeypatch.setattr(train_step, "in_own_process", in_own_process)
    not_run = ["before"]
    assert train_step._timed(_cases(), "manifest", tmp_path, not_run) == {
        "step_s_bf16": 2.0,
        "mfu_ratio_bf16": 0.5,
        "batch_size_bf16": 8,
        "gpu_launches_bf16": 0,
    }
    assert not_run == [
        "before",
        "fp32: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.",
        "bf16: the profiler saw no kernel",
        "bf16_compiled: RuntimeError: no such kernel",
        "bf16_checkpointed: its process was killed: out of memory?",
    ]


def test_a_mistake_in_a_case_ends_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(case: Case) -> dict[str, Any]:
        raise TypeError("a mistake")

    monkeypatch.setattr(train_step, "measured", measured)
    monkeypatch.setattr(train_step, "in_own_process", lambda work, *given: work(*given))
    with pytest.raises(TypeError, match="a mistake"):
        train_step._timed(_cases(), "manifest", tmp_path, [])


def test_the_batch_of_a_case_is_what_fits() -> None:
    """Twice as many when blocks are computed again. One sample is left to try on a device of nothing."""
    deep = Architecture(width=32, num_layers=6, num_heads=2, num_registers=2, adapter_width=4)
    cases = {name: replace(c, architecture=deep, batch_size=1024) for name, c in _cases().items()}
    sizes = [batch_that_fits(cases[name], 17 * 10**8) for name in ("bf16", "bf16_checkpointed")]
    assert sizes == [128, 256]
    assert batch_that_fits(cases["bf16"], 0) == 1
    assert batch_that_fits(cases["bf16"], 10**15) == 1024


def test_cases_of_a_gpu_are_compiled_and_of_three_widths_of_heads() -> None:
    """The fastest first; what is no case is refused with the names of those that are."""
    case = Case(architecture=Architecture(width=384, num_layers=1, num_heads=8), device="cuda", batch_size=8, num_steps=1)  # fmt: skip
    on_gpu, on_cpu = train_step.cases_of(case), train_step.cases_of(replace(case, device="cpu"))
    assert next(iter(on_gpu)) == "bf16_compiled"
    assert on_gpu["bf16_compiled_selective"].checkpointed == "selective"
    assert on_gpu["bf16_compiled_residual"].architecture.residual == "bf16"
    assert on_cpu.keys() < on_gpu.keys()
    heads = {n: c for n, c in on_gpu.items() if n.startswith("heads")}
    assert {n: c.settings.head_width for n, c in heads.items()} == {"heads_64": 64, "heads_128": 128}  # fmt: skip
    assert all(c.is_compiled for c in heads.values())
    for asked, answer in ((["--only", "bf1"], "bf16_checkpointed"), (["--only", "bf16", "--counts"], "nothing to choose")):  # fmt: skip
        refused = CliRunner().invoke(_app(), asked)
        assert refused.exit_code == 2
        assert answer in refused.output


NAMES = (
    "nvjet_sm90_tst_192x192_64x3_2x1_v_bz_coopB_NNN",
    "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>",
    "void cudnn::fusion::compute_dot_do_o<true>(void const*",
    "triton_poi_fused__scaled_dot_product_cudnn_attention_backward_cat_transpose_view_24",
    "ncclDevKernel_AllGather_RING_LL",
    "void at::native::multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata>",
    "Memcpy HtoD (Pinned -> Device)",
    "void at::native::vectorized_elementwise_kernel<4>",
)


def test_kernels_of_a_gpu_are_sorted_and_idle_is_when_none_runs() -> None:
    """Names as an H100 gave them. A copy beside a product is no idle time, and time between steps is."""
    kinds = ["products", "attention", "attention", "attention", "compiled", "communication", "optimiser", "copies", "eager"]  # fmt: skip
    assert [gpu_kernels.kind_of(name) for name in NAMES] == kinds
    product, fused, copy = NAMES[0], NAMES[4], NAMES[7]
    spans = ((product, 0, 4000), (copy, 1000, 5000), (fused, 6000, 7000), (product, 7000, 9000))
    kernels = [Kernel(name=n, begin_us=begin, end_us=end) for n, begin, end in spans]
    assert gpu_kernels.busy_us(kernels[::-1]) == 8000
    assert gpu_kernels.by_kind(kernels, 2) == {
        "compiled": 0.5, "copies": 2.0, "idle": 0.5, "products": 3.0,
    }  # fmt: skip
    assert gpu_kernels.by_kind([], 2) == {}
    lines = gpu_kernels.as_text(kernels, 2).splitlines()
    assert lines[1].split() == ["3.000", "ms", "1.0", "products", product]
    assert lines[-1].split(maxsplit=3) == ["0.500", "ms", "0.5", f"{copy} -> {fused}"]


def test_figures_of_a_gpu_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert result.gpu() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    assert result.gpu() == {"gpu": "H100", "torch": torch.__version__}


def test_the_peak_of_a_process_is_not_that_of_its_parent() -> None:
    """A parent that had 600 MB and gave them back."""
    held = bytearray(b"x") * 600_000_000
    assert peak_rss_mib() > 550
    del held
    assert in_own_process(peak_rss_mib) < 550


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    return make(tmp_path_factory.mktemp("trainable"))


@pytest.mark.slow
def test_a_step_is_that_of_a_run_with_its_loader(
    trainable: Trainable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other samples in each batch, from the corpus; a line of the log on disk, with the time that was waited for data."""
    settings = Case.settings.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Case,
        "settings",
        property(lambda case: settings(case).model_copy(update={"latent_width": LATENT_WIDTH})),
    )

    def with_latents(case: Case) -> TrainRecipe:
        data = recipe_of(case).data.model_copy(
            update={"encoder": "tiny_vit", "cameras": ("front",)}
        )
        return recipe_of(case).model_copy(update={"data": data})

    monkeypatch.setattr(step_case, "recipe_of", with_latents)
    case = Case(
        architecture=SMALL,
        device="cpu",
        batch_size=8,
        num_steps=2,
        precision="fp32",
        num_patches=NUM_PATCHES,
        manifest=str(trainable.manifest),
        out=str(tmp_path),
    )
    batches = host_batches(case)
    one, two = next(batches), next(batches)
    assert one.origin.row.tolist() != two.origin.row.tolist()
    figures = measured(case)
    assert figures["data_wait_share"] > 0
    assert figures["mfu_ratio"] > 0
    log = (tmp_path / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [
        1,
        2,
        4,
        5,
    ]  # the last with the profiler
