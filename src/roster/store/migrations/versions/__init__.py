"""One module per step, never changed once released; a step does not import store/tables.py."""
