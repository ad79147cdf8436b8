"""Built-in tier policies, one YAML file each: docs/how-to/quality-policy.md."""
