"""Traces, interventions, attributions and effects, class-activation maps, and how faithful they are."""

from ..foundation.lazy import lazy_exports

_HOMES = {
    "trace": ("Trace", "trace_clips", "compare_traces", "responses_of", "stage_weights"),
    "tracer": ("Tracer", "select_blocks"),
    "interventions": (
        *("Intervention", "SelectionChange", "InputChange", "changed"),
        *("drop", "keep", "force", "uniform", "set_weights", "temperature", "from_clip", "from_class"),
        *("reverse", "shuffle", "freeze", "drop_frames", "patch_shuffle", "blur"),
    ),
    "answers": ("READINGS", "load_clips", "logits_of", "readings", "partner_index"),
    "variants": ("stream_logits", "logits_under"),
    "attribution": ("KINDS", "Attribution", "from_trace"),
    "effects": (
        *("Effect", "measure", "attribute", "ablation_map", "ablation_table", "rank_agreement"),
        *("coalitions", "shapley_values"),
    ),
    "cam": ("ClipCam", "cam_layers", "clip_cam", "clip_cams", "gate_maps", "shared_top"),
    "faithfulness": (
        *("deletion_insertion", "curve_areas", "parameter_randomisation"),
        *("clip_masks", "pointing_game", "pointing_table"),
    ),
    "checks": ("check_steps", "run_checks"),
    "check_report": ("CheckInput", "CheckResult", "FaithfulnessReport"),
    "agreement": ("seed_agreement",),
}

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {name: f".{room}" for room, names in _HOMES.items() for name in names}
)
