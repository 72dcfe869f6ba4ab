"""The hooks that stand on a network: what looks at one for a moment must leave none behind."""

from torch import nn

# torch has no public list of the hooks of a module; this is the one place that reads its private ones
_KINDS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)


def hooks(
    network: nn.Module,  # asked with all its parts
) -> int:  # hooks of every kind
    """How many hooks there are."""
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in _KINDS)
