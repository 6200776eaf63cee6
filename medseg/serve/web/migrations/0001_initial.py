import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import medseg.serve.web.models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("time", models.DateTimeField(auto_now_add=True, db_index=True)),
                ("user", models.CharField(max_length=150)),
                ("address", models.CharField(max_length=45)),
                ("action", models.CharField(max_length=40)),
                ("about", models.CharField(max_length=200)),
            ],
            options={
                "ordering": ["-time", "-id"],
            },
        ),
        migrations.CreateModel(
            name="FailedLogIn",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("time", models.DateTimeField(auto_now_add=True, db_index=True)),
                ("account", models.CharField(db_index=True, max_length=150)),
                ("address", models.CharField(db_index=True, max_length=45)),
            ],
        ),
        migrations.CreateModel(
            name="Study",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=medseg.serve.web.models.new_id,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("title", models.CharField(max_length=120)),
                ("ready", models.BooleanField(default=False)),
                ("deidentify", models.BooleanField(default=False)),
                ("declared_bytes", models.BigIntegerField(default=0)),
                ("contents", models.JSONField(default=dict)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "ordering": ["-created"],
            },
        ),
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("bundle", models.CharField(max_length=200)),
                ("folder_name", models.CharField(max_length=32)),
                ("reviewed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "reviewed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "study",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="jobs", to="web.study"
                    ),
                ),
            ],
            options={
                "ordering": ["-created"],
            },
        ),
        migrations.CreateModel(
            name="Comparison",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=medseg.serve.web.models.new_id,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("reference", models.CharField(max_length=200)),
                ("other", models.CharField(max_length=200)),
                ("problem", models.TextField(default="")),
                (
                    "study",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="comparisons",
                        to="web.study",
                    ),
                ),
            ],
            options={
                "ordering": ["-created"],
            },
        ),
    ]
