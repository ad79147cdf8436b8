"""What `eicorpus export --to` takes. Light: the command line reads it at its start."""

from __future__ import annotations

from enum import StrEnum


class ExportFormat(StrEnum):
    """Formats of an export."""

    ICEBERG = "iceberg"
    LEROBOT_V3 = "lerobot-v3"
    GROOT = "groot"
    LDA = "lda"
    LINGBOT_VA = "lingbot-va"
    OPENPI = "openpi"
    WEBDATASET = "webdataset"
    RLDS = "rlds"
