"""Arrays and tables to figures; names are imported when they are used."""

from ..foundation.lazy import lazy_exports

_HOMES = {
    ".style": ("COLOURS", "HeatTable", "draw_heat", "fig_tables", "new_figure", "to_png"),
    ".clips": ("fig_cam_strip", "fig_clip"),
    ".sheets": ("animation", "fig_contact_sheet", "fig_top_k"),
    ".selection": (
        "class_intervals",
        "confused_pairs",
        "fig_depth",
        "fig_difference",
        "fig_selection",
        "nearest_clips",
        "selection_map",
    ),
    ".groups": (
        "fig_class_stages",
        "fig_confusions",
        "fig_map",
        "fig_responses",
        "fig_selection_by_class",
        "fig_selection_by_stage",
    ),
    ".checks": ("fig_checks", "fig_over_seeds", "fig_randomisation"),
    ".effects": (
        "fig_attribution",
        "fig_curves",
        "fig_interventions",
        "fig_triptych",
    ),
    ".training": ("fig_confusion", "fig_history", "fig_lr_sweep", "fig_reliability"),
}
__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {name: module for module, names in _HOMES.items() for name in names}
)
