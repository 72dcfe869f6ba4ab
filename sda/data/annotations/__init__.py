"""Official annotation files, and clips of one's own, as records: one module a dataset, one ledger a file."""

from .base import ListReport
from .diving48 import read_diving48_vocabulary, records_diving48
from .epic import at_native_rate, records_epic55
from .layouts import records_csv, records_folder
from .own import split_records
from .something import records_something_v1, records_something_v2

__all__ = [
    "ListReport",
    "at_native_rate",
    "read_diving48_vocabulary",
    "records_csv",
    "records_diving48",
    "records_epic55",
    "records_folder",
    "records_something_v1",
    "records_something_v2",
    "split_records",
]
