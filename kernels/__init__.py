"""The arithmetic: functions of arrays, compiled by Numba. Each file imports numpy and numba only and can be read alone."""
