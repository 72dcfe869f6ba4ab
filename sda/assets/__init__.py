"""What ships with the package: four networks, twenty sample clips, the published results."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
DEFAULT_MODEL = FOLDER / "checkpoints" / "sda_tsn_moves.safetensors"
SAMPLE_CLIPS = FOLDER / "moves_sample"
PUBLISHED = FOLDER / "published.csv"
TRAINED_ON = {"071272a22db5ff8e": "drawn clips (Moves)"}  # hash of the class names -> what such clips are
