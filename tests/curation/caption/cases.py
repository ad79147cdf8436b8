"""What the tests of `eicorpus caption` share: what there is to see in their corpus, and one run over it."""

from __future__ import annotations

from typing import Any

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.curation.captions.backends import backend_for
from ingest.curation.captions.cache import Cache
from ingest.curation.captions.run import CaptionTally, caption_corpus
from ingest.curation.captions.settings import CaptionSettings
from ingest.storage.local import LocalStorage
from tests.curation.caption.fake_endpoint import Fake

# What the generated hands do by their own labels, and what a model that sees it says: checks 1 to 5 hold.
SEEN: dict[str, Any] = {
    "description": {
        "visible_hands": "both",
        "objects": ["tower of cups"],
        "events": [
            {
                "start_s": 0.0,
                "end_s": 1.0,
                "hand": "both",
                "action": "assemble and take",
                "object": "tower of cups",
            }
        ],
        "contact": "yes",
        "quality": [],
    },
    "instruction": {
        "status": "ok",
        "instruction": "Assemble and take the tower of cups.",
        "left": None,
        "right": None,
        "verb": "assemble",
        "object": "tower of cups",
        "destination": None,
        "agrees_with_source": "yes",
        "evidence_s": [0.5],
        "confidence": 0.9,
        "rephrasings": ["Build a tower of cups."],
    },
}


NUM = 3  # episodes of the generated source, each with one text


def settings(fake: Fake | None = None, **change: Any) -> CaptionSettings:
    quick = {"timeout_s": 5, "tries": 1, "wait_max_s": 0, "concurrency": 1}
    return CaptionSettings.model_validate(
        {
            "backend": "openai" if fake else "rules",
            "model": "tiny",
            "controls": 0,
            "consistency_share": 0,
            **change,
            "endpoint": {
                **quick,
                **({"url": fake.url} if fake else {}),
                **change.get("endpoint", {}),
            },
        }
    )


def caption(corpus: CorpusLayout, asked: CaptionSettings, **more: Any) -> CaptionTally:
    backend = backend_for(asked, key="", cache=Cache.of(corpus, LocalStorage()))
    current = snapshot.load(corpus.root)
    tally, _ = caption_corpus(
        corpus, current, backend, asked, run_id="r", disk=LocalStorage(), **more
    )
    return tally


def rows_of(corpus: CorpusLayout) -> list[dict[str, Any]]:
    rows = snapshot.load(corpus.root).read(corpus.root, "captions").to_pylist()
    return sorted(rows, key=lambda row: (row["uid"], row["start"]))
