"""The app of the operator commands."""

from django.apps import AppConfig


class CommandsApp(AppConfig):
    """The management commands behind the subcommands of ``turku-api``."""

    name = "turku.api.commands"
    label = "commands"
    verbose_name = "Commands"
