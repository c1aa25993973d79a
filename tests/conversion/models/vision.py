"""The models of vision, and what each of their input forms has to give."""

from __future__ import annotations

VISION = []
