"""Pictures of one colour and a question about each, as `image_text.data` takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (20, 40, 210)}


def write_pairs(folder: Path, num: int = 12, more: tuple[Any, ...] = ()) -> Path:
    """`more`: further lines, written as they are where they are text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[Any] = []
    for number in range(num):
        name = list(COLOURS)[number % 3]
        picture = np.full((64, 64, 3), COLOURS[name], dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
        question, answer = "Which colour is it?", f"It is {name}."
        if number % 2:
            lines.append({"image": f"{number}.png", "prompt": question, "answer": answer})
        else:
            turns = [
                {"from": "human", "value": f"<image>\n{question}"},
                {"from": "gpt", "value": answer},
            ]
            lines.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    texts = [x if isinstance(x, str) else json.dumps(x) for x in (*lines, *more)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{text}\n" for text in texts))
    return path
