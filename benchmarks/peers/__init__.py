"""The systems that are measured, each a small class in a module of its own.

Each module runs in the interpreter of an environment where its system is installed, so it
imports nothing else but the standard library, numpy, psutil and its neighbours here.
"""
