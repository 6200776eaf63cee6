"""Learning from contours of uneven quality: a trainer that weights labels, its peers, and label noise one can replay."""
