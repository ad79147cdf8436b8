"""What a corpus spec may say. Paths in it start at its own folder. docs/how-to/build.md shows one, docs/reference/corpus.schema.json is its
JSON Schema; `jobs/build/spec_file.py` reads the file and says where a mistake is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ingest.curation.captions.select import TextPolicy
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.manifests.mixture_text import Mixture
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.tiers.policy import BUILT_IN
from ingest.export.format_names import ExportFormat
from ingest.recipe import Limits, Recipe

VERSION = 1
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")]
TargetName = Annotated[str, Field(pattern=r"^[a-z_]+(\.[a-z0-9][a-z0-9_-]{0,47})?$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Target(_Part):
    # Other targets that are built before, beside those whose results it reads.
    after: tuple[TargetName, ...] = ()


class AssetsSpec(_Part):
    """Files of your own that some sources need. They are part of what identifies finished work."""

    # Folder with MANO_LEFT.pkl and MANO_RIGHT.pkl; default: EICORPUS_MANO_DIR.
    mano: str | None = None
    # Device of the hand model.
    mano_device: Literal["cpu", "cuda"] = "cpu"
    # URDF of the robot, for sources that store only joints.
    urdf: str | None = None
    # Folder with camera poses of ViPE, MegaSAM or HaWoR.
    camera_poses: str | None = None


class SourceSpec(_Target):
    """Raw data that one adapter reads. Target `sources.NAME`."""

    # Folder or file of raw data, or its URI (s3://, gs://, az://, hf://).
    path: str
    # A name from `eicorpus list sources`, or FILE.py:Class.
    adapter: str
    # Dataset within the source (oxe); overrides its metadata.
    dataset: str | None = None
    # Options of the adapter.
    options: dict[str, str] = {}
    # Ingest only episode ids that match this glob.
    select: str | None = None
    # Ingest at most so many episodes.
    limit: int | None = Field(None, ge=1)
    # Changes to the ingest recipe.
    recipe: Recipe = Recipe()
    assets: AssetsSpec = AssetsSpec()
    # Protection of the machine, and the shares that may be lost.
    limits: Limits = Limits()


class MeasuresSpec(_Target):
    """Measurements of every episode. Target `measures`."""

    # Only these measures; default: all.
    only: tuple[str, ...] = ()
    # Model file of `eicorpus models get hand-landmarker`.
    hand_landmarker: str | None = None


class TiersSpec(_Target):
    """The quality policy. Target `tiers`."""

    # A name from `eicorpus list policies`, or a YAML file.
    policy: str = BUILT_IN


class DuplicatesSpec(_Target):
    """Duplicate recordings. Target `duplicates`."""


class CaptionsSpec(CaptionSettings, _Target):
    """Captions, with the settings of `eicorpus caption --config`. Target `captions`."""

    @property
    def settings(self) -> CaptionSettings:
        return CaptionSettings.model_validate(self.model_dump(exclude={"after"}))


class LatentsSpec(_Target):
    """Image tokens of one encoder. Target `latents.NAME`."""

    # A name from `eicorpus list encoders`.
    encoder: str = "dinov3_vits16"
    # Folder with the encoder's safetensors files.
    weights: str | None = None
    # Encoder on the Hugging Face Hub: OWNER/NAME.
    hub_id: str | None = None
    # Random weights from this seed (tests and demos only).
    untrained: int | None = Field(None, ge=0)
    # Number format of stored tokens.
    dtype: Literal["bf16", "fp8", "int8"] = "bf16"
    # Encode one image every N timesteps (10 per second).
    stride: int = Field(3, ge=1)
    # Also store the CLS and register tokens.
    keep_prefix: bool = False
    # How images are made square.
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    # Only these cameras; default: all.
    cameras: tuple[str, ...] = ()
    # SQL expression over episodes.
    where: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Images per batch; 0 chooses by the device.
    batch: int = Field(0, ge=0)
    compile: bool = False


class TextFeaturesSpec(_Target):
    """Features of instructions from a frozen vision-language model. Target `text_features.NAME`."""

    # Folder of a Qwen3-VL model.
    vlm: str
    # Layer whose hidden states are stored; -1 is the last.
    layer: int = -1
    # Show the model one frame every N seconds; default: text only.
    frame_every_s: float | None = Field(None, gt=0)
    # {text} is the instruction.
    prompt: str = "Instruction: {text}"
    # Glob of the camera of the frames; default: the first one.
    camera: str = "*"
    # SQL expression over episodes.
    where: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: int = Field(8, ge=1)


class SplitSpec(_Part):
    """How a manifest is split."""

    # Keep each of these groups within one split.
    by: SplitBy = SplitBy.AUTO
    val: float = Field(0.02, ge=0, lt=1)
    test: float = Field(0.02, ge=0, lt=1)
    # Keep the val and test splits of a source out of train.
    keep_source_splits: bool = True


class ManifestSpec(_Target):
    """Segments to train on. Target `manifests.NAME`, with a version for each content."""

    # SQL expression over episodes, tier, start and end that selects segments.
    where: str = ""
    # A policy other than that of `tiers`: a name or a YAML file.
    policy: str | None = None
    # Sampling weights of groups, or a file with them.
    mixture: Mixture | None = None
    mixture_file: str | None = None
    split: SplitSpec = SplitSpec()
    # Instruction text: from the source, or a caption.
    text: TextPolicy = TextPolicy.BEST
    # Normalisation statistics; training needs them.
    statistics: bool = True


class ExportSpec(_Target):
    """The catalog as Iceberg tables, or a manifest as datasets of another trainer. Target `exports.NAME`."""

    # The format.
    to: ExportFormat
    # iceberg: folder for the tables and their SQLite catalog.
    warehouse: str | None = None
    # iceberg: catalog of the pyiceberg configuration.
    catalog: str | None = None
    # iceberg: namespace of the tables; one for each corpus.
    namespace: str = "corpus"
    # All others: a manifest of this spec, whose segments are exported.
    manifest: Name | None = None
    # All others: output folder, with a folder for each version of the manifest.
    out: str | None = None
    # All others: licence classes besides permissive that may be exported.
    allow_licence: tuple[Literal["non_commercial", "no_redistribution", "unknown"], ...] = ()
    # lda: what becomes of segments that may not supervise a policy; default leave-out.
    low_tier: Literal["leave-out", "forecasting"] | None = None
    # lingbot-va: folder with vae, text_encoder and tokenizer of Wan 2.2.
    weights: str | None = None
    # lingbot-va: seeded networks instead, to try it.
    untrained: int | None = Field(None, ge=0)
    # lingbot-va: timesteps between two images; default 1.
    frame_stride: int | None = Field(None, ge=1)
    # lingbot-va: pixels of an image, HxW; default 256x320.
    size: str | None = Field(None, pattern=r"^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$")

    @property
    def own_keys(self) -> tuple[str, ...]:
        """What this format takes, beside `to`."""
        if self.to is ExportFormat.ICEBERG:
            return ("warehouse", "catalog", "namespace")
        return ("manifest", "out", "allow_licence", *_OF_FORMAT.get(self.to, ()))


_OF_FORMAT = {
    ExportFormat.LDA: ("low_tier",),
    ExportFormat.LINGBOT_VA: ("weights", "untrained", "frame_stride", "size"),
}


class ReportSpec(_Target):
    """An HTML report. Target `reports.NAME`."""

    # Output file, outside of the corpus.
    html: str
    # Policy whose thresholds are drawn; default: the last used.
    policy: str | None = None


class VerifySpec(_Target):
    """A check of every file after everything else. Target `verify`."""

    # Decode every frame instead of the first and the last.
    deep: bool = False


class Spec(_Part):
    """A corpus: what it is made from, how it is curated, and what is made from it."""

    version: Literal[1]
    # Folder of the corpus, or its URI (s3://, gs://, az://); created by the first build.
    corpus: str = "./corpus"
    sources: dict[Name, SourceSpec] = Field(min_length=1)
    measures: MeasuresSpec | None = None
    tiers: TiersSpec | None = None
    duplicates: DuplicatesSpec | None = None
    captions: CaptionsSpec | None = None
    latents: dict[Name, LatentsSpec] = {}
    text_features: dict[Name, TextFeaturesSpec] = {}
    manifests: dict[Name, ManifestSpec] = {}
    exports: dict[Name, ExportSpec] = {}
    reports: dict[Name, ReportSpec] = {}
    verify: VerifySpec | None = None

    def parts(self) -> dict[str, Any]:
        """Target -> its part of the spec, in the order of the stages."""
        out: dict[str, Any] = {}
        for field in SECTIONS:
            section = getattr(self, field)
            if isinstance(section, dict):
                out |= {f"{field}.{name}": part for name, part in section.items()}
            elif section is not None:
                out[field] = section
        return out


SECTIONS = tuple(name for name in Spec.model_fields if name not in ("version", "corpus"))


def json_schema() -> dict[str, Any]:
    """For editors: docs/reference/corpus.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Spec.model_json_schema(),
        "title": "eicorpus corpus spec",
    }
