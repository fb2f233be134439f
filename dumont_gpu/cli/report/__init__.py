"""What commands say of their results: a record for programs, lines for people."""
