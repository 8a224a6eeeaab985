"""packed: any file of a packed set replaced, with fitting checksums or not: the same images, or a DataError."""

from drive import fuzz

if __name__ == "__main__":
    fuzz("packed", "numpy.lib.format")
