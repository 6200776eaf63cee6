"""RT Structure Sets: read, drawn into masks, measured, written."""
