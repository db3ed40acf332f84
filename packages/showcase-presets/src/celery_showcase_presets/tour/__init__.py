"""A guided tour that runs on real workers and checks what it promises."""

from __future__ import annotations
