"""Finds the tensors of a file in the file's own table of contents: their names, element types, shapes and bytes."""
