"""The benchmark: corpora (input), measure (figures against peers), report (one record, every form it is shown in).

`dumont-gpu bench` runs it; the scripts in the repository's `bench/` are other ways in.
"""
