"""Traces, interventions, effects, class-activation maps, and how far to trust them."""
