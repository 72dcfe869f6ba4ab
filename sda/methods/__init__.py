"""Ways of modelling time, one room each: `create_model` finds them by name. Here is what measures any of
them."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "TemporalShift": ".shift",
        "block_reach": ".receptive_field",
        "cost_table": ".receptive_field",
        "stage_reach": ".receptive_field",
        "toy_features": ".receptive_field",
    },
)
