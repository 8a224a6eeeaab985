"""weights: any file of a model folder; safetensors, torch.save, NumPy, Deep Compression: sound weights, or an AlexNetError."""

from drive import fuzz

if __name__ == "__main__":
    fuzz("weights", "numpy.lib.format", "safetensors")
