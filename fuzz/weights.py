"""weights: any file of a model folder, safetensors, NumPy and Deep Compression files: sound weights, or an AlexNetError."""

from drive import fuzz

if __name__ == "__main__":
    fuzz("weights", "numpy.lib.format", "safetensors")
