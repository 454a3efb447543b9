"""The arithmetic: functions of arrays, compiled by Numba.

Each file imports numpy and numba only, never another file of this project: Numba's disk cache does not notice a changed
callee in another file. It is also why each can be read alone.
"""
