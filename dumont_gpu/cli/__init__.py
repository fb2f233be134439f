"""The command line: options become jobs, results become text or JSON."""
