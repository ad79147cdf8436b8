"""A corpus in the forms of other projects: views that can be made again from it, never its truth."""
