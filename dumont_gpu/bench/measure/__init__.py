"""Measurements: each module times one kind of work, in turn with its peers, and checks every output."""
