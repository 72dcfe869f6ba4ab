"""Errors: their fields, their families, and the way from a worker process."""

import pickle

import pytest

from sda.foundation.errors import (
    DataError,
    DivergedError,
    FolderError,
    MissingPackageError,
    RunError,
    SdaError,
    SettingError,
    UnknownNameError,
    VideoError,
    lacks_memory,
    listed,
    missing_package,
    nearest,
    unknown_name,
)

FAMILIES = {
    SdaError: Exception,
    UnknownNameError: ValueError,
    SettingError: ValueError,
    DataError: ValueError,
    VideoError: RuntimeError,
    RunError: RuntimeError,
    DivergedError: RunError,
    FolderError: OSError,
    MissingPackageError: ImportError,
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_error_is_of_the_library_and_of_its_builtin_family(kind):
    assert issubclass(kind, SdaError)
    assert issubclass(kind, FAMILIES[kind])


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_error_survives_the_way_from_a_worker(kind):
    error = kind("it broke", subject="a.mp4", choices=["b", "c"], remedy="mend it")
    error.place = 3
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "it broke; mend it"
    assert again.args == error.args
    assert (again.subject, again.choices, again.remedy, again.place) == ("a.mp4", ("b", "c"), "mend it", 3)


class _Line(DataError):
    def __init__(self, file, number):
        super().__init__(f"{file}:{number} is wrong", subject=file)
        self.number = number


def test_a_subclass_with_other_arguments_survives_too():
    again = pickle.loads(pickle.dumps(_Line("list.txt", 7)))
    assert (str(again), again.subject, again.number) == ("list.txt:7 is wrong", "list.txt", 7)


def test_a_remedy_stands_in_the_message_once():
    assert str(SdaError("no such file", remedy="check the path")) == "no such file; check the path"
    assert str(SdaError("No such file.", remedy="Check the path.")) == "No such file. Check the path."
    assert (
        str(SdaError("no such file; check the path", remedy="check the path"))
        == "no such file; check the path"
    )


def test_fields_are_empty_by_default():
    error = SdaError("it broke")
    assert (str(error), error.subject, error.choices, error.remedy) == ("it broke", None, (), None)


def test_an_unknown_name_has_the_nearest_one_and_the_choices():
    error = unknown_name("sampler", "dense_", ["tsn", "dense"])
    assert isinstance(error, UnknownNameError)
    assert str(error) == "unknown sampler 'dense_': did you mean 'dense'? (there are dense, tsn)"
    assert (error.subject, error.choices) == ("dense_", ("tsn", "dense"))
    assert "dense" in error.remedy


def test_an_unknown_name_without_a_similar_one():
    error = unknown_name("sampler", "zzz", iter(["tsn", "dense"]))
    assert str(error) == "unknown sampler 'zzz': (there are dense, tsn)"
    assert (error.choices, error.remedy) == (("tsn", "dense"), None)


def test_long_choices_can_be_shortened_and_stay_in_the_field():
    error = unknown_name("clip", "zzz", [f"clip{k:03}" for k in range(500)], most=2)
    assert str(error).endswith("(there are clip000, clip001 and 498 more)")
    assert len(error.choices) == 500


def test_nearest():
    assert nearest("tms", ["tsn", "tsm", "gst"]) in ("tsm", "tsn")
    assert nearest("lst", ["LT", "LST", "S122"]) == "LST"
    assert nearest("zzz", ["tsn"]) is None
    assert nearest("a", []) is None
    assert nearest(3, ["3"]) == "3"


def test_listed():
    assert listed([]) == ""
    assert listed("abc") == "a, b, c"
    assert listed("abcdefg") == "a, b, c and 4 more"
    assert listed((1, 2), most=1) == "1 and 1 more"


def test_a_missing_package_is_named_with_what_installs_it():
    error = missing_package("grad-cam", "class-activation maps", "pip install grad-cam")
    assert isinstance(error, MissingPackageError)
    assert (error.subject, error.remedy) == ("grad-cam", "pip install grad-cam")
    assert str(error).count("pip install grad-cam") == 1
    assert "class-activation maps" in str(error)
    assert missing_package("grad-cam", "maps", "cam").remedy == 'pip install "sda-workbench[cam]"'


@pytest.mark.parametrize(
    "said, remedy",
    [
        ("libx264.so: failed to map segment from shared object: Cannot allocate memory", "memory"),
        ("libav.so.60: undefined symbol: av_frame_get", "pip install av"),
    ],
)
def test_a_package_that_is_there_is_not_called_missing(said, remedy):
    try:
        raise ImportError(said)
    except ImportError:
        error = missing_package("av", "reading video files", "pip install av")
    assert remedy in error.remedy and said in str(error) and "not installed" not in str(error)


@pytest.mark.parametrize(
    "error, lacks",
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (FileNotFoundError(2, "No such file"), False),
    ],
)
def test_lack_of_memory_has_many_types(error, lacks):
    assert lacks_memory(error) == lacks
