"""Doors that stay open: servers on the network."""
