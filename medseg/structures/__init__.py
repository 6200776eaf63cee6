"""What structures are called: names, types and colours, TG-263, and a clinic's own names."""
