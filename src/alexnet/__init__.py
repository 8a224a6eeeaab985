"""AlexNet, the system of Krizhevsky, Sutskever and Hinton (2012), on PyTorch."""

__version__ = "0.1.0"
