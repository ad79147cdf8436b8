"""The rules of the loaders that read an export, checked on its files alone.

A module for each consumer; none of them knows the exporters, so that a mistake there is not made here once more. The files may be of others
and are hostile: what cannot be read is a finding."""

__all__ = ["check"]
