"""Masks and polygons as shapes: outlines, filling, margins, masks kept small. numpy and scipy only."""
