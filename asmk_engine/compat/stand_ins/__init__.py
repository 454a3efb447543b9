"""Folders with one module each, named as a package of others; `installation` puts them on the path of imports.

They serve processes that are started by one in which the drop-in is installed, since `multiprocessing` hands them its
path of imports, but none of its modules.
"""
