"""Recurrent layers over whole sequences on the CPU, beside those of other libraries."""
