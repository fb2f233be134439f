"""Tree entries as columns: a table that C fills, checks and sorts, and the manifest that is made of its pages."""
