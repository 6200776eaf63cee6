"""Commands on files, with no network: inspect, convert, derive, compare."""
