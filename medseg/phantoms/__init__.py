"""Images made of formulas, whose truth is known."""
