"""What `import sda` offers, and what it costs."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import sda
from sda.foundation.lazy import lazy_exports

FRONT_DOOR = {
    "SDA",
    "DEPENDENCIES",
    "create_model",
    "list_models",
    "profile",
    "load_model",
    "load_reference",
    "predict",
    "trace_clips",
    "open_video",
    "open_dataset",
    "ClipReader",
    "set_weights",
    "inspect",
}


def packages():
    """The package itself and its chapters."""
    chapters = [m.name for m in pkgutil.iter_modules(sda.__path__, "sda.") if m.ispkg]
    return ["sda", *chapters]


def test_the_front_door_offers_what_people_look_for():
    assert FRONT_DOOR <= set(sda.__all__)


@pytest.mark.parametrize("package", packages())
def test_every_offered_name_is_there(package):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", ()):
        offered = getattr(module, name)
        assert not inspect.ismodule(offered), f"a module {package}.{name} hides what is offered"
        assert name in dir(module)


def test_a_name_is_the_very_object_of_its_room():
    from sda.networks.blocks import SDA

    assert sda.SDA is SDA and inspect.isclass(sda.SDA)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as error:
        _ = sda.nothing_of_the_kind
    assert error.value.name == "nothing_of_the_kind" and not hasattr(sda, "nothing_of_the_kind")
    with pytest.raises(ImportError):
        from sda import nothing_of_the_kind  # noqa: F401


def test_a_name_may_be_offered_under_another():
    get, _, names = lazy_exports("sda.networks", {"frames_first": ".blocks:fold_clips"})
    from sda.networks.blocks import fold_clips

    assert names == ["frames_first"] and get("frames_first") is fold_clips


def test_importing_the_package_is_instant():
    code = """
import time
start = time.process_time()
import sda
print(time.process_time() - start)
import sys
assert not {"torch", "numpy", "pandas", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1
