"""The reader for any machine: one file of Python, which `dumont-gpu reader` writes."""
