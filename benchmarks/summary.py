"""Write sda/assets/evidence.json, the numbers that ship, from the records in data/results: python
benchmarks/summary.py"""

from pathlib import Path

from sda.studies.summary import write_summary

if __name__ == "__main__":
    print(write_summary(Path(__file__).resolve().parents[1] / "data" / "results"))
