"""Opens a snapshot from a source; every byte is verified before it is used."""
