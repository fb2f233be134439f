"""Fills a target directory: changes nothing outside the target, and loses no file inside."""
