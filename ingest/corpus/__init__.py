"""The corpus on disk: where everything lies, which snapshot is current, and how a batch of episodes is committed.

`layout.CorpusLayout` opens a corpus, `snapshot` names the catalog parts of one moment, `staging` holds episodes that are not yet
committed, `commit` numbers and publishes them, `recovery` completes or undoes what a stopped command left, and `writing` is how
every command takes a corpus for writing. The content rules of LeRobot v2.1 are in `lerobot_writer` and `lerobot_meta`."""

__all__ = [
    "commit",
    "committed_episodes",
    "dataset_info",
    "digest",
    "erasure",
    "known_files",
    "layout",
    "ledger",
    "lerobot_meta",
    "lerobot_writer",
    "manifest_folders",
    "number_columns",
    "recovery",
    "redaction",
    "snapshot",
    "snapshot_list",
    "staging",
    "tombstones",
    "writing",
]
