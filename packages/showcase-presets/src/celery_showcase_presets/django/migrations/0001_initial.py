"""The model without a table, so that ``makemigrations`` finds nothing to do."""
# mypy: disable-error-code="import-untyped,misc"
# Django ships no types.

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make known what `models` says."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[object]] = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ],
            options={
                "verbose_name": "dead letter",
                "verbose_name_plural": "dead letters",
                "permissions": [("replay_deadletter", "Can send dead letters again")],
                "managed": False,
                "default_permissions": ("view", "delete"),
            },
        ),
    ]
