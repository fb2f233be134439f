"""File trees: the source of a pack, the target of a restore, and the patterns that select entries."""
