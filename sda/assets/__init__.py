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


def shipped() -> dict[str, Path]:
    """The model files that ship, by the names of their networks."""
    return {file.stem: file for file in sorted(CHECKPOINTS.glob("*.safetensors"))}


def model_file(
    name_or_path: str | Path,  # a file, the folder of a run, or the name of a network that ships
) -> Path:
    """The path, or the network that ships under this name where nothing lies at the path."""
    path = Path(name_or_path)
    return path if path.exists() else shipped().get(str(path), path)


def no_model_file(
    path: Path,  # from `model_file`
    kind: str = "model file",  # how the error calls it
) -> FileNotFoundError:
    """The error for a file that is not there, with the names that would have been understood."""
    text = f"there is no {kind} {path}"
    if not path.exists():
        text += f"; give a file, or one of the networks that ship: {', '.join(shipped())}"
    return FileNotFoundError(text)
