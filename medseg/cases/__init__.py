"""What goes in and what comes out: volumes, radiographs, regions, masks made elsewhere, results. Never
torch."""
