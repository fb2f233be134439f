"""Scans the source trees of a pack."""
