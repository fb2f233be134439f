"""The benchmark behind `dumont-gpu bench`: corpora, measurements against peers, and reports.

`bench/` in the repository keeps what only developers need, and imports what it shares from here.
"""
