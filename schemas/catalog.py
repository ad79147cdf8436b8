"""The catalog's tables: one pyarrow schema each. Append-only facts; columns may be added, never changed.

Readers union parts by name, so a part written before a column existed reads as NULL there.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT_VERSION = 1  # a reader refuses a corpus with a higher one
MOST_FRAMES = 1 << 26  # of one episode: 25 days at 30 Hz

_FACT = pa.struct(
    [
        ("name", pa.string()),
        ("value", pa.string()),
        ("certainty", pa.string()),
        ("source", pa.string()),
    ]
)
_CAMERA = pa.struct(
    [
        ("name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("source_codec", pa.string()),
        ("was_copied", pa.bool_()),
        (
            "K_cam",
            pa.list_(pa.float64()),
        ),  # row-major 3x3, pixels of the stored video; NULL unknown
        ("lens_model", pa.string()),  # schemas/camera_model.py; NULL unknown
        ("lens_params", pa.list_(pa.float64())),
    ]
)
_REASON = pa.struct(
    [
        ("code", pa.string()),  # of the rule
        ("text", pa.string()),
        ("value", pa.float64()),  # NULL: unknown, or no number
        ("threshold", pa.float64()),
    ]
)
_ERASED_FILE = pa.struct(
    [
        ("kind", pa.string()),  # data | video
        ("camera", pa.string()),
        ("path", pa.string()),
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("detail_json", pa.string()),  # its statistics
    ]
)
_END = pa.struct([("run_id", pa.string()), ("state", pa.string())])
_REPEAT = pa.struct(
    [
        ("camera", pa.string()),
        ("start", pa.int64()),  # timesteps [start, end)
        ("end", pa.int64()),
        (
            "luma",
            pa.float64(),
        ),  # largest mean difference of consecutive source pictures; 0: bit-equal
    ]
)
_RAW_FILE = pa.struct([("path", pa.string()), ("num_bytes", pa.int64()), ("digest", pa.string())])

TABLES: dict[str, pa.Schema] = {
    "sources": pa.schema(
        [
            ("source", pa.string()),
            ("dataset", pa.string()),
            ("root", pa.string()),
            ("adapter_version", pa.int32()),
            ("licence", pa.string()),
            ("licence_class", pa.string()),
            ("facts", pa.list_(_FACT)),
            ("notes", pa.list_(pa.string())),
            ("run_id", pa.string()),
        ]
    ),
    "episodes": pa.schema(
        [
            ("uid", pa.string()),
            ("source", pa.string()),
            ("dataset", pa.string()),
            ("episode_id", pa.string()),
            ("embodiment", pa.string()),
            ("dataset_path", pa.string()),
            ("episode_index", pa.int64()),
            ("index_from", pa.int64()),  # first value of the LeRobot `index` column
            ("length", pa.int64()),
            ("duration_s", pa.float64()),
            ("hours", pa.float64()),
            ("tasks", pa.list_(pa.string())),  # in order of first appearance
            ("task_counts", pa.list_(pa.int64())),  # timesteps of each
            ("cameras", pa.list_(_CAMERA)),
            (
                "absent_cameras",
                pa.list_(pa.string()),
            ),  # the source has them, their files were not there
            ("eef_frame", pa.string()),  # hand_xfz | source | none
            ("frames_verified", pa.bool_()),  # the axes of every hand, numerically
            ("camera_motion_removed", pa.bool_()),
            ("action_source", pa.string()),  # commanded | achieved | mixed | none
            ("action_coverage", pa.float64()),  # share of timesteps whose whole action is valid
            (
                "command_only",
                pa.list_(pa.string()),
            ),  # slices of the action without a measured state
            ("supervises", pa.list_(pa.string())),
            ("supervision_limits", pa.list_(pa.string())),
            ("source_rate_hz", pa.float64()),
            ("source_rate", pa.string()),  # the exact fraction, "30000/1001"
            ("worst_image_skew_ms", pa.float64()),
            ("repeated_frame_share", pa.float64()),
            # Where source pictures repeat the one before: ingest/video/stats.py; NULL: they were not compared.
            ("source_repeats", pa.list_(_REPEAT)),
            ("num_gaps", pa.int32()),
            ("success", pa.bool_()),
            ("subject_id", pa.string()),
            ("scene_id", pa.string()),
            ("split_group", pa.string()),  # what no split may cut through: schemas/split.py
            ("split", pa.string()),  # train | val | test at the default shares
            ("source_split", pa.string()),  # train | val | test as the source itself says; "" none
            ("licence", pa.string()),
            ("licence_class", pa.string()),
            ("allows_redistribution", pa.bool_()),
            ("facts", pa.list_(_FACT)),
            ("raw_files", pa.list_(_RAW_FILE)),
            ("adapter_version", pa.int32()),
            ("recipe_digest", pa.string()),
            ("options_digest", pa.string()),  # "" without adapter options
            ("content_sha256", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    "segments": pa.schema(
        [
            ("uid", pa.string()),
            ("segment_index", pa.int32()),
            ("kind", pa.string()),  # valid_run | task | subtask | summary
            ("start", pa.int64()),  # timesteps [start, end)
            ("end", pa.int64()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("text", pa.string()),
        ]
    ),
    "measurements": pa.schema(
        [
            ("uid", pa.string()),
            ("name", pa.string()),
            ("version", pa.int32()),
            ("value", pa.float64()),
            ("unit", pa.string()),
            ("start", pa.int64()),  # timesteps [start, end) where it holds; NULL for all
            ("end", pa.int64()),
            ("denominator", pa.int64()),  # samples it was measured on
        ]
    ),
    "signatures": pa.schema(
        [
            ("uid", pa.string()),
            ("kind", pa.string()),  # trajectory | pictures | rows; only equal kinds compare
            (
                "version",
                pa.int32(),
            ),  # of the measure that made it; the highest of a (uid, kind) holds
            ("vector", pa.list_(pa.float32())),
        ]
    ),
    "verdicts": pa.schema(
        [
            ("uid", pa.string()),
            ("source", pa.string()),
            ("dataset", pa.string()),
            ("episode_id", pa.string()),
            ("state", pa.string()),  # committed | filtered | quarantined | failed
            ("code", pa.string()),
            ("message", pa.string()),
            ("attempts", pa.int32()),
            ("run_id", pa.string()),
            ("snapshot", pa.int64()),
        ]
    ),
    "tiers": pa.schema(
        [
            ("uid", pa.string()),
            ("policy", pa.string()),
            ("policy_digest", pa.string()),
            ("segment_index", pa.int32()),  # the segments of one run cover the episode, in order
            ("start", pa.int64()),  # timesteps [start, end)
            ("end", pa.int64()),
            ("tier", pa.string()),  # high | low | actionless | excluded
            ("tasks", pa.list_(pa.string())),  # what it may teach
            ("reasons", pa.list_(_REASON)),
            ("run_id", pa.string()),
            ("snapshot", pa.int64()),
        ]
    ),
    "policies": pa.schema(  # one row for each run of `eicorpus tier`
        [
            ("policy", pa.string()),
            ("version", pa.int32()),
            ("policy_digest", pa.string()),
            ("text", pa.string()),  # the YAML, whole
            ("run_id", pa.string()),
            ("snapshot", pa.int64()),
            ("reads_sha256", pa.string()),  # of the rows that it read; NULL: by an older version
        ]
    ),
    "duplicates": pa.schema(  # every episode that has a copy; all NULL but `uid` when it has none any more
        [
            ("uid", pa.string()),
            ("cluster", pa.string()),  # lowest uid of all that copies, or copies of copies, join
            ("kept_uid", pa.string()),  # the copy to keep; its own uid when that is it
            ("kind", pa.string()),  # kept | exact | near; several of a cluster may be kept
            ("evidence", pa.string()),  # bytes | motion and pictures | pictures
            ("path_distance", pa.float64()),  # to the kept one; NULL where nothing can be compared
            ("opening_distance", pa.float64()),
            ("look_distance", pa.float64()),
            ("duration_ratio", pa.float64()),
            ("reason", pa.string()),  # what the kept one is better by
            ("run_id", pa.string()),
            ("snapshot", pa.int64()),
        ]
    ),
    "dedups": pa.schema(  # one row for each run of `eicorpus dedup` that had something new to say
        [
            ("episodes", pa.int64()),  # that there were
            ("measured", pa.int64()),  # of them, compared in full
            ("clusters", pa.int64()),
            ("redundant", pa.int64()),
            ("run_id", pa.string()),
            ("snapshot", pa.int64()),
        ]
    ),
    "captions": pa.schema(
        [
            ("caption_id", pa.string()),
            ("uid", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("text", pa.string()),
            ("language", pa.string()),
            ("backend", pa.string()),
            ("prompt_version", pa.string()),
            ("outcome", pa.string()),
            ("run_id", pa.string()),
            ("model", pa.string()),  # what answered, with its revision where it has one
            ("prompt_sha256", pa.string()),  # "" where no prompt was asked
            ("params_json", pa.string()),
            ("source_text", pa.string()),  # what a timestep there has; NULL for nothing
            ("rephrasings", pa.list_(pa.string())),
            ("checks_failed", pa.list_(pa.string())),
            ("checks_silent", pa.list_(pa.string())),  # there was nothing to judge by
            ("detail", pa.string()),  # why it is not ok; what failed checks complain of
            ("confidence", pa.float64()),  # as the backend says; NULL where it does not
            ("description_json", pa.string()),  # pass one
            ("camera", pa.string()),
            ("sheet_sha256", pa.string()),
            ("frames_s", pa.list_(pa.float64())),  # pictures shown, from the segment's start
            ("cache_key", pa.string()),
            ("latency_s", pa.float64()),  # of both passes; NULL when no model was called
        ]
    ),
    "reviews": pa.schema(  # what people say of episodes: schemas/review.py
        [
            ("review_id", pa.string()),  # UUID made by the client: the same one again adds no row
            ("uid", pa.string()),
            ("start", pa.int64()),  # timesteps [start, end); NULL for the whole episode
            ("end", pa.int64()),
            ("kind", pa.string()),  # tier_override | exclude | accept | caption_fix | note
            ("value", pa.string()),  # the tier, the text or the reason
            ("author", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("snapshot", pa.int64()),  # that the author looked at
            ("supersedes", pa.string()),  # review_id that no longer holds; NULL for none
        ]
    ),
    "latents": pa.schema(
        [
            ("uid", pa.string()),
            ("camera", pa.string()),
            ("encoder_id", pa.string()),
            ("path", pa.string()),
            ("num_frames", pa.int64()),
            ("dtype", pa.string()),
            ("sha256", pa.string()),
            ("video_sha256", pa.string()),
            ("run_id", pa.string()),
            ("num_bytes", pa.int64()),  # of the file
            (
                "pack_offset",
                pa.int64(),
            ),  # of its first byte in the pack `path`; NULL: `path` is the file
        ]
    ),
    "artifacts": pa.schema(
        [
            ("uid", pa.string()),  # "" for what belongs to a whole dataset
            ("kind", pa.string()),  # data | video | features | tasks
            ("camera", pa.string()),
            ("path", pa.string()),  # relative to the corpus
            ("num_bytes", pa.int64()),
            ("sha256", pa.string()),
            ("num_frames", pa.int64()),
            ("detail_json", pa.string()),  # statistics of a file; features of a dataset
        ]
    ),
    # Datasets that `eicorpus export --manifest` wrote elsewhere, and copies that `eicorpus push` sent, so that `forget` can name those
    # that hold an episode.
    "exports": pa.schema(
        [
            ("sha256", pa.string()),  # of its files; "" of one that begins, and of a pushed corpus
            ("format", pa.string()),  # `corpus` of a pushed corpus
            ("location", pa.string()),  # folder of the export; address of a pushed copy
            ("manifest", pa.string()),  # "" of a pushed corpus
            ("manifest_sha256", pa.string()),  # of the rows of the manifest
            ("num_segments", pa.int64()),
            ("uids", pa.list_(pa.string())),  # episodes that it holds, whole or in part
            ("run_id", pa.string()),
        ]
    ),
    # Episodes that `eicorpus forget` erased. A place in a dataset stays, so that no other episode changes: it is filled
    # with as many timesteps of nothing.
    "tombstones": pa.schema(
        [
            ("uid", pa.string()),
            ("source", pa.string()),
            ("dataset", pa.string()),
            ("episode_id", pa.string()),
            ("reason", pa.string()),
            ("erased_at", pa.timestamp("us", tz="UTC")),
            ("run_id", pa.string()),
            ("dataset_path", pa.string()),  # the place; NULL when it was never committed
            ("episode_index", pa.int64()),
            ("index_from", pa.int64()),
            ("length", pa.int64()),
            ("files", pa.list_(_ERASED_FILE)),  # what lies there now
            ("ends", pa.list_(_END)),  # verdicts that were erased: the counts of runs stay
        ]
    ),
    "runs": pa.schema(
        [
            ("run_id", pa.string()),
            ("command", pa.string()),
            ("started_at", pa.timestamp("us", tz="UTC")),
            ("finished_at", pa.timestamp("us", tz="UTC")),
            ("executor", pa.string()),
            ("recipe_digest", pa.string()),
            ("recipe_json", pa.string()),
            ("discovered", pa.int64()),
            ("committed", pa.int64()),
            ("filtered", pa.int64()),
            ("quarantined", pa.int64()),
            ("failed", pa.int64()),
            ("not_reached", pa.int64()),  # 0 but for an interrupted run; NULL before it was counted
            (
                "suspect_nodes",
                pa.list_(pa.string()),
            ),  # that quarantine far more than the others; NULL before it was counted
        ]
    ),
}


# Columns that came after a corpus could already hold rows: NULL in older parts, absent from work that an older version
# staged, and part of an episode's content only where they say something.
ADDED_COLUMNS: dict[str, tuple[str, ...]] = {
    "episodes": ("source_split", "source_repeats", "command_only", "absent_cameras"),
    "latents": ("pack_offset",),
}
