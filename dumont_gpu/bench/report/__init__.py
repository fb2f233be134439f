"""The record of a benchmark, and the forms it is shown in: tables, text, Markdown, SVG, HTML."""
