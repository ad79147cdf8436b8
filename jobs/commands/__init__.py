"""The commands of `eicorpus`, one module each, and the parts of a command that is too long for one module.

`jobs/command_table.py` imports a module of this folder only when its command runs or when its own help is printed."""
