"""decode: the bytes of an image file become RGB pixels or an ImageError."""

from drive import fuzz

if __name__ == "__main__":
    fuzz("decode", "PIL")
