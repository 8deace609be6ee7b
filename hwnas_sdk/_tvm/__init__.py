"""TVM, kept in a child process.

`process` and `versions` are what the rest of the package uses; they import no TVM. `child` is
started as a process; `compat` and `remote` run in it and alone know what TVM calls things.
"""
