"""Segments of a manifest as episodes of datasets that other trainers read.

`plan` says what an export contains and what is left out, `run` writes it unit by unit and can be resumed, and a module for each format
writes its files. `eicorpus_export.json` in the folder is written last."""

__all__ = [
    "format",
    "formats",
    "lda",
    "lerobot_shared_files",
    "lingbot_va",
    "plan",
    "record",
    "run",
]
