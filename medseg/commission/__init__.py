"""Before automatic contours are used: is this installation sound, and are the contours good enough here?"""
