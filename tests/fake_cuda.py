"""A CUDA device that computes nothing: what a GPU would refuse is found on a machine without one.

torch's fake tensors carry device, type and shape, and refuse to mix devices as real ones do. Where the
library asks for numbers (`numpy()`, `tolist()`, `item()`, a truth) zeros stand in; `numpy()` of what is not
on the processor, or is bfloat16, is refused as torch refuses it. Gradients are zeros of the right kind.
"""

from contextlib import contextmanager

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # torch has no public names for them


def _numpy(tensor, *, force=False):
    """Zeros of this shape, where torch would give an array."""
    if tensor.device.type != "cpu" and not force:
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy: use Tensor.cpu() first")
    if tensor.requires_grad:
        raise RuntimeError("can't call numpy() on a tensor that requires grad: use tensor.detach().numpy()")
    if tensor.dtype == torch.bfloat16:
        raise TypeError("got unsupported ScalarType BFloat16")
    kind = str(tensor.dtype).partition(".")[2]
    return np.zeros(tuple(tensor.shape), kind)


def _number(tensor):
    """Zero, or for a truth yes: `if logits.isfinite().all()` goes on."""
    if tensor.dtype == torch.bool:
        return True
    return 0.0 if tensor.is_floating_point() else 0


def _tolist(tensor):
    """Zeros, nested as the tensor is."""
    if not tensor.ndim:
        return _number(tensor)
    return [_tolist(part) for part in tensor.unbind()]


STAND_INS = {
    "numpy": _numpy,
    "item": _number,
    "tolist": _tolist,
    "__bool__": lambda tensor: bool(_number(tensor)) or tensor.dtype != torch.bool,
    "__float__": lambda tensor: float(_number(tensor)),
    "__int__": lambda tensor: int(_number(tensor)),
    "__index__": lambda tensor: int(_number(tensor)),
}


def _grad(outputs, inputs, **options):
    """Gradients of zero."""
    return tuple(torch.zeros_like(one) for one in inputs)


@contextmanager
def fake_cuda(monkeypatch):
    """Inside, tensors are fake; `torch.device("cuda")` makes them on a GPU."""
    with monkeypatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        for name, stand_in in STAND_INS.items():
            real = getattr(torch.Tensor, name)

            def method(tensor, *args, _real=real, _stand_in=stand_in, **options):
                return (_stand_in if isinstance(tensor, FakeTensor) else _real)(tensor, *args, **options)

            patch.setattr(torch.Tensor, name, method)
        patch.setattr(torch.autograd, "grad", _grad)
        yield
