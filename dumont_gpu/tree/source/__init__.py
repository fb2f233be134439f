"""Finds what a source tree holds."""
