"""A runnable example: three workers, and customers that each stay on one of them."""

from __future__ import annotations
