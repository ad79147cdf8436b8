"""Where an encoder's weights come from: a folder, the hub, a Python package, or a seed; and the digest that names them.

Safetensors only, nothing is unpickled and no code of a folder runs; a package's file is read only where it is the very one that an entry
names, and as tensors alone. The digest of a single file is the file's own sha256, which the hub shows too. Seeded weights are drawn by numpy's PCG64, not by torch, whose normal numbers depend on the processor's vector width: the same seed
is the same network on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ingest.models.encoders import CLASSES, EncoderSpec, WeightPackage
from schemas.errors import ConfigError, SourceError, TransientError
from schemas.json_text import DOCUMENT, read_json
from schemas.regular_file import read_regular

MAX_PACKAGE_BYTES = 1 << 28  # of the weights in a package
HUB_TIMEOUT_S = 10.0  # to say what it has; a download that has begun may take as long as it needs
PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json")
INDEX = "model.safetensors.index.json"
# what a damaged or hostile folder was seen to end in
_LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError)
# Not part of what encodes: masks of pre-training. Everything else must be in the file.
_MAY_BE_MISSING = ("mask_token",)
_HEAD = ("head.", "vision_model.head.")  # pools the patches, which are what is wanted
_OF_NO_WEIGHT = ("image_size", "vision_use_head")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """One of: a folder of a downloaded model, its name on the hub, a seed for random weights; none if none are needed."""

    folder: str = ""
    hub_id: str = ""
    untrained_seed: int | None = None

    def __post_init__(self) -> None:
        sources = [bool(self.folder), bool(self.hub_id), self.untrained_seed is not None]
        if sum(sources) > 1:
            expected = "only one of --weights FOLDER, --hub-id OWNER/NAME, --untrained SEED"
            raise ConfigError(f"{sum(sources)} sources of weights; expected {expected}")
        if self.hub_id and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub_id):
            raise ConfigError(f"{self.hub_id!r}; expected OWNER/NAME", where="--hub-id")
        if self.untrained_seed is not None and self.untrained_seed < 0:
            raise ConfigError(f"{self.untrained_seed}; expected 0 or more", where="--untrained")


def library() -> Any:
    """`transformers`, whose types say less than it does.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import_module("torch")
        import_module("safetensors")
        return import_module("transformers")
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[train]'") from error


def load_network(spec: EncoderSpec, source: WeightSource) -> tuple[Any, str]:
    """(the network in float32 on the CPU, sha256 of its weights).

    Raises:
        ConfigError: no such weights, or not those of `spec`; the message says what to do.
    """
    if not spec.has_weights:
        return _without_weights(spec, source)
    if spec.package is not None and source.untrained_seed is None:
        return _from_package(spec, spec.package, source)
    if source == WeightSource():
        expected = "expected one of --weights FOLDER, --hub-id OWNER/NAME, --untrained SEED"
        raise ConfigError(f"no weights; {expected}", where=f"--encoder {spec.name}")
    if source.untrained_seed is not None:
        return _seeded(spec, source.untrained_seed)
    if not spec.hub_id:
        problem = "this encoder has no trained weights"
        raise ConfigError(problem, remedy="add --untrained SEED", where=f"--encoder {spec.name}")
    folder = Path(source.folder) if source.folder else _from_hub(spec, source.hub_id)
    return _from_folder(spec, folder), weights_sha256(folder)


def _without_weights(spec: EncoderSpec, source: WeightSource) -> tuple[Any, str]:
    """An encoder that is arithmetic; the digest is of its settings, not of cosines, whose last bit is the machine's."""
    if source != WeightSource():
        raise ConfigError(
            "this encoder needs no weights",
            remedy="remove the option",
            where=f"--encoder {spec.name}",
        )
    from ingest.models.patch_dct import PatchDct

    config_text = json.dumps({"family": spec.family, **spec.config}, sort_keys=True)
    return PatchDct(**spec.config).eval(), hashlib.sha256(config_text.encode()).hexdigest()


def _from_package(
    spec: EncoderSpec, package: WeightPackage, source: WeightSource
) -> tuple[Any, str]:
    """The network of the weights that an installed package carries; the digest is of its file's own and of the settings, which say what part encodes."""
    if source != WeightSource():
        problem = f"the weights of this encoder come with the package {package.distribution}"
        remedy = "remove --weights or --hub-id"
        raise ConfigError(problem, remedy=remedy, where=f"--encoder {spec.name}")
    data = BytesIO(package_bytes(package))
    import torch

    network = _blank(spec)
    network.load_published(torch.load(data, map_location="cpu", weights_only=True))
    settings = {"family": spec.family, "file": package.sha256, **spec.config}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return network.eval(), digest


def package_bytes(package: WeightPackage) -> bytes:
    """The file of the weights. None of the package's code runs.

    Raises:
        ConfigError: the package is not installed, or its file is another than the published one.
    """
    remedy = f"run pip install 'eicorpus[{package.extra}]'"
    again = f"run pip install --force-reinstall {package.distribution}"
    try:
        path = Path(str(distribution(package.distribution).locate_file(package.path)))
    except PackageNotFoundError as error:
        problem = f"{package.distribution}, which carries the weights, is not installed"
        raise ConfigError(problem, remedy=remedy) from error
    try:
        data = read_regular(path, max_bytes=MAX_PACKAGE_BYTES)
    except (SourceError, TransientError) as error:
        problem = f"the weights cannot be read: {error}"
        raise ConfigError(problem, remedy=again, where=str(path)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        problem = f"sha256 {digest[:12]} is not {package.sha256[:12]}, that of the published file"
        raise ConfigError(problem, remedy=again, where=str(path))
    return data


def weights_sha256(folder: Path, stem: str = "model") -> str:
    """Of a single file its own; of several, of the lines `<sha256>  <name>` in the order of names.

    Raises:
        ConfigError: there is no model, or one whose weights are pickled.
    """
    files = weight_files(folder, stem)
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append((hashlib.file_digest(file, "sha256").hexdigest(), path.name))
    if len(digests) == 1:
        return digests[0][0]
    lines = "".join(f"{digest}  {name}\n" for digest, name in digests)
    return hashlib.sha256(lines.encode()).hexdigest()


def tensors_sha256(network: Any) -> str:
    """sha256 of the parameters by name: name, dtype, shape and little-endian bytes of each."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """The files that hold weights, by name. `stem`: of the file, as the library that wrote it calls it.

    Raises:
        ConfigError: there is no model, or an index names something that is no safetensors file beside it.
    """
    if not (folder / "config.json").is_file():
        problem = "no config.json"
        raise ConfigError(
            problem, remedy="pass the folder of a downloaded model", where=str(folder)
        )
    single = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        problem = f"no {stem}.safetensors; pickled weights are not read"
        raise ConfigError(
            problem, remedy="download or convert the model as safetensors", where=str(folder)
        )
    try:
        names = sorted(set(read_json(index, limits=DOCUMENT)["weight_map"].values()))
    except (SourceError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"not a safetensors index: {error!r}",
            remedy="download the model again",
            where=str(index),
        ) from error
    for name in names:
        # the library unpickles whatever the index names otherwise
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith(".safetensors")
        ):
            problem = f"the index names {str(name)[:80]!r}; expected .safetensors files"
            raise ConfigError(problem, where=str(index))
        if not (folder / name).is_file():
            raise ConfigError(f"{name} is missing", remedy="download it again", where=str(folder))
    return [folder / name for name in names]


def _from_folder(spec: EncoderSpec, folder: Path) -> Any:
    """The network of a folder, in float32."""
    weight_files(folder)
    _check_config(spec, _config_of(folder), folder)
    transformers = library()
    _, model_name = CLASSES[spec.family]
    import torch
    from safetensors import SafetensorError

    try:
        network, report = getattr(transformers, model_name).from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",  # a config may name one to download
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (*_LOAD_ERRORS, SafetensorError) as error:
        raise ConfigError(
            f"cannot be loaded: {error}",
            remedy="check --encoder, or download the model again",
            where=str(folder),
        ) from error
    _check_config(spec, network.config.to_dict(), folder)
    _check_whole(spec, report, folder)
    return network.eval()


def _config_of(folder: Path) -> dict[str, Any]:
    """`config.json`, of a model of text and pictures the part about pictures."""
    path = folder / "config.json"
    try:
        raw = read_json(path, limits=DOCUMENT)
        config: dict[str, Any] = dict(raw.get("vision_config", raw))
    except (SourceError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"not a valid configuration: {error!r}",
            remedy="download the model again",
            where=str(path),
        ) from error
    return config


def _check_config(spec: EncoderSpec, config: Mapping[str, Any], folder: Path) -> None:
    """Refuse another model; what a configuration does not say is the library's default."""
    odd = [
        f"{key} {config[key]!r}, not {value!r}"
        for key, value in spec.config.items()
        if key in config and key not in _OF_NO_WEIGHT and config[key] != value
    ]
    if odd:
        problem = f"the model is not {spec.name}: {'; '.join(odd)}"
        raise ConfigError(
            problem, remedy="pass the matching name with --encoder", where=str(folder)
        )


def _check_whole(spec: EncoderSpec, report: Any, folder: Path) -> None:
    """Refuse weights of which a part would be left at random."""
    odd = [key for key in report["missing_keys"] if not key.endswith(_MAY_BE_MISSING)]
    odd += [str(key) for key in report["mismatched_keys"]]
    odd = sorted(key for key in odd if not key.startswith(_HEAD))
    if odd:
        problem = f"{len(odd)} tensors are missing or have a different shape ({', '.join(odd[:3])})"
        raise ConfigError(
            f"{problem}; expected all tensors of {spec.name}",
            remedy="check --encoder, or download the model again",
            where=str(folder),
        )


def _seeded(spec: EncoderSpec, seed: int) -> tuple[Any, str]:
    """A network of weights drawn from (seed, name of the tensor), so that no tensor depends on the order of others.

    Matrices have the variance 1 / fan-in, which lets what a picture shows through; biases are 0, scales 1.
    """
    network = _blank(spec)
    draw_weights(network, seed)
    return network.eval(), tensors_sha256(network)


def _blank(spec: EncoderSpec) -> Any:
    """The network before it has weights."""
    if spec.family == "efficientnet_lite":
        from ingest.models.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(**spec.config)
    transformers = library()
    import torch

    config_name, model_name = CLASSES[spec.family]
    config = getattr(transformers, config_name)(**spec.config)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):  # the library draws weights too, which are not kept
        return getattr(transformers, model_name)(config)


def draw_weights(network: Any, seed: int) -> None:
    """Seeded weights in place of those of a network: each tensor from (seed, its name)."""
    import torch

    with torch.no_grad():
        for name, tensor in network.named_parameters():
            tensor.copy_(torch.from_numpy(_drawn(name, tuple(tensor.shape), seed)))


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:  # scales of norms and of layers
        return np.ones(shape, np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    is_token = shape[0] == 1 or "position_embedding" in name
    deviation = 0.02 if is_token else 1.0 / float(np.sqrt(np.prod(shape[1:])))
    return (rng.standard_normal(shape) * deviation).astype(np.float32)


def _from_hub(spec: EncoderSpec, hub_id: str) -> Path:
    """The folder of a model of the hub: what is in the cache already, else downloaded.

    Raises:
        ConfigError: it is gated, does not exist, or the hub does not respond.
    """
    library()
    hub: Any = import_module("huggingface_hub")
    errors: Any = import_module("huggingface_hub.errors")
    where = f"--hub-id {hub_id}"
    if cached := _in_cache(hub, errors, hub_id):
        return cached
    try:
        hub.HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_S)  # says quickly that nobody answers
        return Path(
            hub.snapshot_download(hub_id, allow_patterns=list(PATTERNS), etag_timeout=HUB_TIMEOUT_S)
        )
    except errors.GatedRepoError as error:
        raise ConfigError(_how_to_get(spec, hub_id), where=where) from error
    except errors.RepositoryNotFoundError as error:
        problem = (
            f"the Hugging Face Hub has no such model, or you have no access; expected {spec.hub_id}"
        )
        raise ConfigError(f"{problem}. {_how_to_get(spec, hub_id)}", where=where) from error
    except (_http_error(errors), errors.OfflineModeIsEnabled, OSError, ValueError) as error:
        raise _unreachable(error, where) from error


def _http_error(errors: Any) -> type[Exception]:
    """What the HTTP client of the hub raises when there is no response: httpx, httpx2 or requests, by the hub's version."""
    kinds: tuple[type[Exception], ...] = errors.HfHubHTTPError.__mro__
    return next(kind for kind in kinds if kind.__name__ == "HTTPError")


def _in_cache(hub: Any, errors: Any, hub_id: str) -> Path | None:
    """Where an earlier download of it lies, whole; no network is used."""
    try:
        folder = Path(hub.snapshot_download(hub_id, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError, ValueError):
        return None
    has_weights = (folder / "model.safetensors").is_file() or (folder / INDEX).is_file()
    return folder if (folder / "config.json").is_file() and has_weights else None


def _unreachable(error: Exception, where: str) -> ConfigError:
    problem = f"the Hugging Face Hub does not respond ({type(error).__name__}: {str(error)[:200]})"
    return ConfigError(
        problem,
        remedy="download the model on another machine and pass its folder with --weights FOLDER",
        where=where,
    )


def _how_to_get(spec: EncoderSpec, hub_id: str) -> str:
    return (
        f"access is gated: accept the {spec.licence or 'licence'} at https://huggingface.co/{hub_id}, run `hf auth login` with "
        "that account and try again, or pass a downloaded copy with --weights FOLDER"
    )
