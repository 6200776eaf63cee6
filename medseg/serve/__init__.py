"""Doors that stay open: processes on the network. None of them loads torch; networks run in workers."""
