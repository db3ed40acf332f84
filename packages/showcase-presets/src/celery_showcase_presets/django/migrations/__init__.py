"""No table: the one migration tells Django of the permissions."""

from __future__ import annotations
