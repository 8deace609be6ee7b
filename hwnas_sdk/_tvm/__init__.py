"""TVM, kept in a child process.

`process` and `versions` are what the rest of the package uses: they import no TVM. `child` is started
as a process; `compat` and `remote` run inside it and are the only modules that know TVM's names.
"""
