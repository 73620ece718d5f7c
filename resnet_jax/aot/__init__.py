"""What a run will take on devices that are not there: its step compiled ahead of time, from the config alone.

`topologies` names slices of TPUs and nodes of GPUs, `programs` compiles a config's steps for one, `hlo` reads the
compiled program's text, and `cost` says what it takes.
"""
