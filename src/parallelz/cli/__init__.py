"""The commands. They parse, call and print; they decide nothing.

What a command needs is imported inside it, so that ``--help`` and errors come at once.
"""
