"""The web application: log in, upload, contour, look, review, download, send."""
