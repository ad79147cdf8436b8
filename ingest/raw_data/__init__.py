"""Raw data in a bucket, as a local tree that adapters read.

`object_tree` lists the objects and makes a placeholder of the true size for each. `object_cache` fetches the content when a file is
opened (`schemas.regular_file`), and puts placeholders in the place of what was used longest ago. `bucket_source` is what a worker gets."""

__all__ = ["bucket_source"]
