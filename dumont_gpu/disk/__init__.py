"""This machine's files: direct reads and writes, and the rule of what an output may replace."""
