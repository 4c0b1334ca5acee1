"""The runs in a folder: a list, one shown, learning curves of several."""
