"""What a process is told by its environment, in one frozen object.

Each setting is a field of a class: its type says how the variable is read, its default stands in the code, its meaning
in the table that `--help` prints. A program adds its own by a subclass. `from_environment` reads a mapping once and
either returns settings that are right, each and together, or raises one error that lists everything wrong. Nothing is
read at import, nothing is read twice, and no file is opened here.
"""

from asyncctl.settings.setting import Problem, SettingsError, setting
from asyncctl.settings.settings import DEBUG_ADDRESS, Settings
from asyncctl.settings.table import Row
from asyncctl.settings.values import Address, Duration, format_duration, is_loopback

__all__ = [
    "DEBUG_ADDRESS",
    "Address",
    "Duration",
    "Problem",
    "Row",
    "Settings",
    "SettingsError",
    "format_duration",
    "is_loopback",
    "setting",
]
