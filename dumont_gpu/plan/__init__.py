"""Decides which bytes go into which chunk, and which codec encodes it."""
