"""Reports on the results of commands: a record for programs, lines for people."""
