"""Thousands of cases over many workers: one table of jobs, one case in flight on each worker, results where
they belong."""
