"""Fills a target tree: nothing outside it, nothing in it lost."""
