"""The local page: a network to look into, to teach and to search with, in a browser on the same machine."""
