"""Files of this machine: direct reads and writes, and the rule for what an output may replace."""
