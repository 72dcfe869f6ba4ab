"""What ships with the package: four networks, sample clips, the published results."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CHECKPOINTS = FOLDER / "checkpoints"
DEFAULT_MODEL = CHECKPOINTS / "sda_tsn_moves.safetensors"
GATED_MODEL = CHECKPOINTS / "sda_tsn_moves_gated.safetensors"  # what it closes has no effect: to look into
SAMPLE_CLIPS = FOLDER / "moves_sample"  # a clip of each class
EXAMPLES = FOLDER / "moves_examples"  # three clips of each class, those of the sample among them
PUBLISHED = FOLDER / "published.csv"
EVIDENCE = FOLDER / "evidence.json"  # numbers of the evidence, see sda.studies.summary
TRAINED_ON = {"071272a22db5ff8e": "drawn clips (Moves)"}  # hash of the class names -> what such clips are
