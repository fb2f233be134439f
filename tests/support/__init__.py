"""Modules that tests share: servers, hostile snapshots, trees, commands, devices."""
