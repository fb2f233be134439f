"""Snapshots: read from a source with every byte verified, and written to a sink."""
