"""What tests share: servers, hostile snapshots, trees, commands, devices."""
