"""What people look at and what machines read afterwards: previews and run records."""
