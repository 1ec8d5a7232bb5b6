"""Watching what serves: references, drift within a false-alarm budget, late labels, alarms, triggers.

Importing the package loads the definitions only; numpy and scipy come with the modules that compute.
"""

from everloop.watch.definitions import Late, MonitorDef, RetrainDef, Trigger, every, on_alarm, on_new_rows

__all__ = ["Late", "MonitorDef", "RetrainDef", "Trigger", "every", "on_alarm", "on_new_rows"]
