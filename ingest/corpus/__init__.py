"""The corpus on disk: where everything lies, which snapshot is current, and how a batch of episodes is committed.

`layout.CorpusLayout` opens a corpus, `snapshot` names the catalog parts of one moment, `staging` holds episodes that are not yet
committed, `commit` numbers them, `publishing` makes a commit, `commit_log`, `working_copy` and `bucket_commit` do so in a bucket, and `writer` opens a corpus for writing, after it completed or undid what an
interrupted command left. The content rules of LeRobot v2.1 are in `lerobot_writer` and `lerobot_meta`."""

__all__ = [
    "bucket_copies",
    "column_checks",
    "commit",
    "commit_log",
    "committed_episodes",
    "committed_files",
    "dataset_info",
    "digest",
    "erasure",
    "erasure_page",
    "known_files",
    "lanes",
    "latent_packs",
    "layout",
    "ledger",
    "lerobot_meta",
    "lerobot_writer",
    "manifest_folders",
    "publishing",
    "remote_link",
    "remote_staging",
    "reviews",
    "shared_manifests",
    "shared_store",
    "snapshot",
    "snapshot_list",
    "staging",
    "state_list",
    "tombstones",
    "working_copy",
    "writer",
]
