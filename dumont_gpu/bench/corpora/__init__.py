"""Input: files and weights that the benchmark measures with, real or made up from a seed."""
