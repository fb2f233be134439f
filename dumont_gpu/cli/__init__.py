"""The command line: options to jobs, results to text or JSON."""
