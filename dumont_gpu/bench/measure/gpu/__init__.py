"""Measurements on a CUDA device; nothing here is imported unless they run."""
