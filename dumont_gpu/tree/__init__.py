"""File trees: scanning a source, and placing entries under a target."""
