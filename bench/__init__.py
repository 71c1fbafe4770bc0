"""Measurements against peers, side by side in one run; ``python -m bench`` runs them (DESIGN §7)."""
