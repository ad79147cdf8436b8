"""The formats of `eicorpus export --manifest`."""

from __future__ import annotations

from collections.abc import Callable

from ingest.export.datasets.format import Format
from ingest.export.datasets.groot import Groot
from ingest.export.datasets.lda import Lda
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.lingbot_va import LingBotVa
from ingest.export.datasets.openpi import OpenPi
from ingest.export.datasets.rlds import Rlds
from ingest.export.datasets.webdataset import WebDataset

FORMATS: dict[str, Callable[[], Format]] = {
    LeRobotV3.name: LeRobotV3,
    Groot.name: Groot,
    Lda.name: Lda,
    LingBotVa.name: LingBotVa,
    OpenPi.name: OpenPi,
    WebDataset.name: WebDataset,
    Rlds.name: Rlds,
}
