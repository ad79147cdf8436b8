"""RLDS sets in their true bytes without TensorFlow: TFRecord framing, tf.Example messages, TFDS metadata.

`write` makes a Bridge-like set at 5 Hz from the scene. The hand of the scene is turned into Bridge's gripper-down frame by
the registry's constant, written out here: T_src = T_hand @ inv(R). Every other function is a building block for tests.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene, rigid_transform

RATE_HZ = 5
NAME, VERSION = "bridge_dataset", "1.0.0"
# Bridge stores its orientation relative to a gripper that hangs down: R_base_hand = R(rpy) @ this.
R_SRC_HAND = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=float)
INSTRUCTION = "put the yellow jaws on the red box"
Key = tuple[str, ...]  # a leaf under steps, one name per level; a name may hold "/"
BRIDGE = {
    ("action",): ("tensor", (7,), "float32"),
    ("language_instruction",): ("text",),
    ("observation", "state"): ("tensor", (7,), "float32"),
    ("observation", "image_0"): ("image", (256, 256, 3), "uint8", "jpeg"),
    ("observation", "image_1"): ("image", (256, 256, 3), "uint8", "jpeg"),
    ("observation", "image_2"): ("image", (256, 256, 3), "uint8", "jpeg"),
}


def write(root: Path) -> Written:
    """Three episodes in two shards under `<root>/bridge_dataset/1.0.0`: 21 steps each, two cameras and an empty slot."""
    scenes = [Scene(seed=seed, duration_s=4.0, width=256, height=256) for seed in range(3)]
    write_set(
        root / NAME / VERSION,
        BRIDGE,
        [bridge_episode(scene) for scene in scenes],
        shard_lengths=(2, 1),
    )
    ids = ("train-00000/000000", "train-00000/000001", "train-00001/000000")
    return Written(
        root=root,
        scenes={f"{NAME}/{VERSION}/{i}": scene for i, scene in zip(ids, scenes, strict=True)},
        position_tolerance_m=2e-3,  # 5 Hz made into 10 Hz: a straight line across 0.2 s
    )


def bridge_episode(scene: Scene, num_steps: int = 21) -> dict[Key, Any]:
    """One episode as Bridge stores it; the first action is as good as zero apart from the gripper."""
    t_s = np.arange(num_steps) / RATE_HZ
    T_src = np.stack([scene.T_base_hand(t) for t in t_s]) @ rigid_transform(R_SRC_HAND.T, [0, 0, 0])
    opening = np.array([scene.gripper_opening(t) for t in t_s])
    state = np.concatenate([T_src[:, :3, 3], rpy_rad(T_src[:, :3, :3]), opening[:, None]], axis=1)
    turn = T_src[1:, :3, :3] @ np.swapaxes(T_src[:-1, :3, :3], 1, 2)
    action = np.zeros((num_steps, 7))
    action[:-1, :3] = np.diff(T_src[:, :3, 3], axis=0)
    action[:-1, 3:6] = rpy_rad(turn)
    action[:, 6] = np.append(opening[1:], opening[-1])
    action[0, :6] = [
        2e-7,
        0,
        -1e-7,
        1e-6,
        -1e-6,
        0,
    ]  # as small as in the real set, and as seldom exactly zero
    pictures = [scene.picture(t) for t in t_s]
    return {
        ("action",): action,
        ("language_instruction",): [INSTRUCTION.encode()] * num_steps,
        ("observation", "state"): state,
        ("observation", "image_0"): [jpeg(p) for p in pictures],
        ("observation", "image_1"): [jpeg(p[:, ::-1]) for p in pictures],
        ("observation", "image_2"): [jpeg(np.zeros((256, 256, 3), np.uint8))] * num_steps,
    }


def rpy_rad(R: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw about fixed axes."""
    return Rotation.from_matrix(R).as_euler("xyz")


def jpeg(rgb: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


# --- sets ---------------------------------------------------------------------------------------------------------------


def write_set(
    directory: Path,
    spec: Mapping[Key, tuple[Any, ...]],
    episodes: Sequence[Mapping[Key, Any]],
    *,
    shard_lengths: Sequence[int] | None = None,
    name: str = "",
    split: str = "train",
    old_style: bool = False,
) -> Path:
    """A version directory with metadata and shards; returns it. `spec` has one tuple per leaf under steps."""
    directory.mkdir(parents=True, exist_ok=True)
    name = name or directory.parent.name
    lengths = list(shard_lengths or [len(episodes)])
    flags: dict[Key, tuple[Any, ...]]
    flags = {(flag,): ("tensor", (), "bool") for flag in ("is_first", "is_last", "is_terminal")}
    tree = features_json({**spec, **flags}, old_style=old_style)
    (directory / "features.json").write_text(json.dumps(tree))
    info = dataset_info(name, directory.name, {split: lengths})
    (directory / "dataset_info.json").write_text(json.dumps(info))
    payloads = [episode_bytes(spec, episode) for episode in episodes]
    start = 0
    for index, length in enumerate(lengths):
        shard = directory / shard_name(name, split, index, len(lengths))
        write_records(shard, payloads[start : start + length])
        start += length
    return directory


def shard_name(name: str, split: str, index: int, count: int) -> str:
    return f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def dataset_info(name: str, version: str, splits: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    return {
        "fileFormat": "tfrecord",
        "name": name,
        "version": version,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "0",
                "shardLengths": [str(n) for n in lengths],
            }
            for split, lengths in splits.items()
        ],
    }


def features_json(
    spec: Mapping[Key, tuple[Any, ...]], *, old_style: bool = False
) -> dict[str, Any]:
    """The tree of features.json: in the protobuf style, or with `type` and `content` as TFDS 4.0 to 4.4 wrote it."""
    tree: dict[str, Any] = {}
    for path, leaf in spec.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    make = _old_node if old_style else _new_node
    return make({"steps": ("dataset", tree), "episode_metadata": {"file_path": ("text",)}})


def _new_node(node: Any) -> dict[str, Any]:
    if isinstance(node, dict):
        return {"featuresDict": {"features": {k: _new_node(v) for k, v in node.items()}}}
    kind, *rest = node
    if kind in ("dataset", "sequence"):
        return {"sequence": {"feature": _new_node(rest[0]), "length": "-1"}}
    if kind == "text":
        return {"pythonClassName": "tfds.Text", "text": {}}
    body: dict[str, Any] = {"dtype": rest[1], "shape": {}}
    if rest[0]:
        body["shape"] = {"dimensions": [str(-1 if d is None else d) for d in rest[0]]}
    if len(rest) > 2:
        body["encodingFormat" if kind == "image" else "encoding"] = rest[2]
    return {kind: body, "description": "template text that nobody changed"}


def _old_node(node: Any) -> dict[str, Any]:
    prefix = "tensorflow_datasets.core.features"
    if isinstance(node, dict):
        children = {k: _old_node(v) for k, v in node.items()}
        return {"type": f"{prefix}.features_dict.FeaturesDict", "content": children}
    kind, *rest = node
    if kind in ("dataset", "sequence"):
        content = {"feature": _old_node(rest[0]), "length": None}
        return {"type": f"{prefix}.dataset_feature.{kind.capitalize()}", "content": content}
    if kind == "text":
        return {
            "type": f"{prefix}.text_feature.Text",
            "content": "",
            "proto_cls": "tfds.TextFeature",
        }
    text = json.dumps({"shape": {"dimensions": [str(d) for d in rest[0]]}, "dtype": rest[1]})
    return {
        "type": f"{prefix}.{kind}_feature.{kind.capitalize()}",
        "content": text,
        "proto_cls": f"tensorflow_datasets.{kind.capitalize()}Feature",
    }


def episode_bytes(
    spec: Mapping[Key, tuple[Any, ...]], episode: Mapping[Key, Any], **extra: Any
) -> bytes:
    """The serialised Example of one episode, the step flags added; `extra` are whole features beside it, by full name."""
    first = next(iter(episode.values()))
    num_steps = len(first)
    k = np.arange(num_steps)
    flags = {"is_first": k == 0, "is_last": k == num_steps - 1, "is_terminal": k == num_steps - 1}
    features: dict[str, Any] = {f"steps/{n}": v.astype(np.int64) for n, v in flags.items()}
    for path, values in episode.items():
        key = "steps/" + "/".join(path)
        features[key] = stored(values, spec[path])
    features["episode_metadata/file_path"] = [b"/somewhere/else"]
    return example_bytes({**features, **extra})


def stored(values: Any, leaf: tuple[Any, ...]) -> Any:
    """How TFDS lays a leaf out: byte strings as they are, floats as float32, integers and bools as int64, all flat."""
    if isinstance(values, list) or leaf[0] in ("text", "image"):
        return values
    array = np.asarray(values)
    kind = np.dtype(leaf[2]).kind
    return array.ravel().astype(np.float32 if kind == "f" else np.int64)


# --- wire bytes ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def feature_bytes(values: Any, *, is_packed: bool = True) -> bytes:
    """A Feature message: bytes for a list of bytes, floats for float32, int64 for integers; empty for None."""
    if values is None:
        return b""
    if isinstance(values, list):
        return field(1, b"".join(field(1, v) for v in values))
    if values.dtype.kind == "f":
        packed = values.astype("<f4").tobytes()
        one_by_one = b"".join(b"\x0d" + packed[i : i + 4] for i in range(0, len(packed), 4))
        return field(2, field(1, packed) if is_packed else one_by_one)
    numbers = [varint(int(v)) for v in values]
    body = field(1, b"".join(numbers)) if is_packed else b"".join(b"\x08" + n for n in numbers)
    return field(3, body)


def example_bytes(features: Mapping[str, Any], *, is_packed: bool = True) -> bytes:
    """A serialised tf.train.Example."""
    entries = b"".join(
        field(1, field(1, name.encode()) + field(2, feature_bytes(v, is_packed=is_packed)))
        for name, v in features.items()
    )
    return field(1, entries)


def record_bytes(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked(length)) + payload + struct.pack("<I", masked(payload))


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_records(path: Path, payloads: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(record_bytes(p) for p in payloads))
