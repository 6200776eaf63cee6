"""How a network is run over a whole image: engines, and windows merged in little memory."""
