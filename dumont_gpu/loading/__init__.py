"""Reads tensors and files out of a snapshot that stays open: only the chunks that hold what is wanted."""
