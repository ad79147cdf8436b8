"""Options and commands of earlier versions. They are refused, and the message names the new spelling."""

from __future__ import annotations

from collections.abc import Collection

ANY = "*"  # every command that has the new option
_IMAGES_OR_TEXT = "eicorpus latents images CORPUS, or eicorpus latents text CORPUS --vlm FOLDER"
# (command, old word): new words. An argument is written in capitals.
RENAMED = {
    (ANY, "--corpus"): "CORPUS",
    (ANY, "--what-if"): "--dry-run",
    (ANY, "--set"): "--dataset",
    (ANY, "--recipe"): "--config",
    (ANY, "--time-limit"): "--time-limit-s",
    (ANY, "--timeout-s"): "--time-limit-s",
    (ANY, "--memory-limit"): "--memory-limit-mb",
    (ANY, "--memory-mb"): "--memory-limit-mb",
    (ANY, "--steps"): "--sampling-steps",
    (ANY, "--encoder-weights"): "--weights",
    (ANY, "--encoder-hub-id"): "--hub-id",
    (ANY, "--num-gpus"): "--gpus-per-encoder",
    (ANY, "--vlm-pictures"): "--vlm-frame-every-s",
    ("ingest", "--threads"): "--decoder-threads",
    ("ingest", "--retry-poison"): "--retry-crash-looping",
    ("verify", "--workers"): "--threads",
    ("digest", "--workers"): "--threads",
    ("manifest verify", "--workers"): "--threads",
    ("train", "--manifest"): "MANIFEST",
    ("train", "--workers"): "--loader-workers",
    ("train", "--num-workers"): "--ray-workers",
    ("measure", "--list"): "eicorpus list measures",
    ("latents", "--list"): "eicorpus list encoders",
    ("latents", ANY): _IMAGES_OR_TEXT,
    ("models", "list"): "eicorpus list models",
    ("", "sources"): "eicorpus list sources",
}


def new_spelling(command: str, old: str, has: Collection[str]) -> str | None:
    """What replaced an option or a command; None if nothing did.

    Args:
        command: "manifest verify"; empty for `eicorpus` itself.
        has: the options and arguments of the command: {"--dry-run", "CORPUS"}.
    """
    general = RENAMED.get((ANY, old))
    return (
        RENAMED.get((command, old))
        or RENAMED.get((command, ANY))
        or (general if general in has else None)
    )
