"""See, measure and change what a video model depends on."""

__version__ = "0.1.0"
