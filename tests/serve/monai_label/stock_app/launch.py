"""Starts the stock server of monailabel 0.8.5 in its own environment; it runs there, not in medseg's."""

import runpy

import shim  # noqa: F401 - before monailabel

if __name__ == "__main__":
    runpy.run_module("monailabel.main", run_name="__main__", alter_sys=True)
