"""checkpoint: any file of two checkpoints replaced: one of the two states, or an AlexNetError."""

from drive import fuzz

if __name__ == "__main__":
    fuzz("checkpoint")
