"""Built-in tier policies, one YAML file each: docs/curation/tiers.md."""
